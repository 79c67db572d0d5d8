"""Inception score (Salimans et al. 2016)."""

import numpy as np
from jaxtyping import Float

SPLIT = 5000  # examples, ADM's evaluation


def inception_score(probabilities: Float[np.ndarray, "n c"], split: int = SPLIT) -> float:
    """Returns exp(mean KL(p(y|x) || p(y))), averaged over splits of the examples in their order.

    Args:
      probabilities: probabilities of the classes; not negative, each row sums to 1.
      split: examples in a split; the last one may hold fewer.
    """
    scores = []
    for start in range(0, len(probabilities), split):
        part = np.asarray(probabilities[start : start + split], np.float64)
        negative_entropy = np.sum(part * _log(part), axis=1).mean()
        mean = part.mean(0)
        scores.append(np.exp(negative_entropy - np.sum(mean * _log(mean))))
    return float(np.mean(scores))


def _log(p: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """Logarithm with a finite value for 0, which is multiplied by 0."""
    return np.log(np.maximum(p, np.finfo(np.float64).tiny))
