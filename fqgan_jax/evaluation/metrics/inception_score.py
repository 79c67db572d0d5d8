"""Inception score (Salimans et al. 2016)."""

import numpy as np
from jaxtyping import Float

SPLIT = 5000  # examples, ADM's evaluation


def inception_score(probabilities: Float[np.ndarray, "n c"], split: int = SPLIT) -> float:
    """exp(mean KL(p(y|x) || p(y))) of each `split` examples in their order, averaged over the splits; the last may be
    smaller. Probabilities are positive, with rows that sum to 1.
    """
    scores = []
    for start in range(0, len(probabilities), split):
        part = np.asarray(probabilities[start : start + split], np.float64)
        negative_entropy = np.sum(part * _log(part), axis=1).mean()
        mean = part.mean(0)
        scores.append(np.exp(negative_entropy - np.sum(mean * _log(mean))))
    return float(np.mean(scores))


def _log(p: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """Logarithm; that of 0, which is multiplied by 0, is finite."""
    return np.log(np.maximum(p, np.finfo(np.float64).tiny))
