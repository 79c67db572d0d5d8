"""The frozen networks that evaluations use, as far as their weights are there."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from jaxtyping import PyTree

from fqgan_jax.errors import UserError
from fqgan_jax.evaluation.features import FeatureNetwork, FeatureSet, load_feature_network
from fqgan_jax.evaluation.metrics.inception_score import SPLIT
from fqgan_jax.evaluation.protocol import ROUNDING
from fqgan_jax.evaluation.reference import Reference, compare
from fqgan_jax.pretrained.lpips import LPIPS_WEIGHTS, load_lpips
from fqgan_jax.pretrained.weights import NETWORKS


class EvaluationNetworks(NamedTuple):
    """Frozen networks, each None where its weights are not there.

    Attributes:
      inception: for everything about features.
      lpips: parameters of `LPIPS`.
      lpips_sha256: of its two published files.
      missing: "inception" and "lpips" to why it is not there and how to get it.
    """

    inception: FeatureNetwork | None = None
    lpips: PyTree | None = None
    lpips_sha256: dict[str, str] | None = None
    missing: dict[str, str] = {}  # noqa: RUF012 (never changed)

    def protocol(self, reference: Reference | None) -> dict:
        """What numbers depend on in every evaluation."""
        protocol = {"reference": reference and reference.protocol, "rounding": ROUNDING}
        if self.inception:
            score = f"splits of {SPLIT} in the order of the images, logits without bias"
            protocol["inception"] = self.inception.protocol() | {"score": score}
        return protocol | {"devices": jax.device_count()}


def load_networks(*, inception: Path | None = None, lpips: bool = False) -> EvaluationNetworks:
    """Inception from a file or the cache, and LPIPS where wanted; what the cache lacks is None.

    Raises:
      UserError: a given file that is missing or damaged.
    """
    network, params, hashes, missing = None, None, None, {}
    try:
        network = load_feature_network(inception)
    except UserError as error:
        if inception:
            raise
        missing["inception"] = str(error)
    if lpips:
        try:
            params = load_lpips()
            hashes = {name: NETWORKS[name].published_sha256 for name in LPIPS_WEIGHTS}
        except UserError as error:
            missing["lpips"] = str(error)
    return EvaluationNetworks(network, params, hashes, missing)


def feature_results(
    features: FeatureSet | None, reference: Reference | None, measures: Sequence[str], networks: EvaluationNetworks
) -> tuple[dict[str, float], dict[str, str]]:
    """Inception score and the comparison's `measures`: numbers, and why some are missing."""
    if features is None:
        return {}, dict.fromkeys([*measures, "inception_score"], networks.missing["inception"])
    score = {"inception_score": features.inception_score()}
    if reference is None:
        return score, dict.fromkeys(measures, "there is nothing to compare with; give --reference")
    results, missing = compare(features, reference, measures)
    return results | score, missing
