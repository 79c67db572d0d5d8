"""The numbers of every feature metric and every code metric, and why some are missing."""

import numpy as np
from jaxtyping import Int

from fqgan_jax.evaluation import metrics
from fqgan_jax.evaluation.networks import EvaluationNetworks

NO_REFERENCE = "no reference is given; give --reference"


def feature_results(
    features: metrics.FeatureSet | None,
    reference: metrics.Reference | None,
    *,
    task: str,
    networks: EvaluationNetworks,
) -> tuple[dict[str, float], dict[str, str]]:
    """Computes every feature metric of a task.

    Args:
      features: features of the measured images, None if there is no network that computes them.
      reference: images or statistics that the images are compared with; None if there are none.
      task: "images", "tokenizer" or "generator".
      networks: those that computed the features, and why others are missing.

    Returns:
      Numbers, and reasons why others are missing, by the name of the result.

    Raises:
      UserError: fewer than two images, or a reference of another network.
    """
    results, missing = {}, {}
    for name, metric in metrics.feature.items():
        if task not in metric.tasks:
            continue
        result = metric.result_name(name, task)
        if features is None or metric.network not in networks.features:
            missing[result] = networks.missing.get(metric.network, "its network is not loaded")
        elif metric.needs_reference and reference is None:
            missing[result] = NO_REFERENCE
        else:
            try:
                results[result] = metric.function(features, reference)
            except metrics.NotMeasuredError as reason:
                missing[result] = str(reason)
    return results, missing


def code_results(codes: Int[np.ndarray, "n h w K"], codebook_size: int) -> dict[str, float]:
    """Computes every code metric of the codes of a set of images, by the name of the result."""
    measured = metrics.CodeSet(codes=codes, codebook_size=codebook_size)
    return {
        f"{name}/{part}": value
        for name, metric in metrics.code.items()
        for part, value in metric.function(measured).items()
    }
