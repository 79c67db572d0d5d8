"""The frozen networks of evaluations; those whose weights are missing are left out."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

from fqgan_jax.errors import UserError
from fqgan_jax.evaluation import metrics
from fqgan_jax.evaluation.features import FeatureNetworks, feature_networks
from fqgan_jax.evaluation.metrics.inception_score import SPLIT
from fqgan_jax.evaluation.protocol import ROUNDING
from fqgan_jax.pretrained.weights import networks


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricNetwork:
    """The network of a reconstruction metric.

    Attributes:
      params: its parameters.
      sha256: SHA-256 of its published files, by name.
    """

    params: PyTree
    sha256: dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationNetworks:
    """Frozen networks.

    Attributes:
      features: for the feature metrics; those whose weights are there.
      reconstruction: those of reconstruction metrics that have one, by the metric's name.
      missing: why a network is missing and how to get it, by the name of its row or the metric's name.
    """

    features: FeatureNetworks = dataclasses.field(default_factory=FeatureNetworks)
    reconstruction: Mapping[str, MetricNetwork] = dataclasses.field(default_factory=dict)
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def protocol(self, reference: metrics.Reference | None) -> dict:
        """Returns what the numbers of every evaluation depend on."""
        origin = None if reference is None else reference.protocol
        protocol: dict[str, Any] = {"reference": origin, "rounding": ROUNDING, **self.features.protocol()}
        if "inception" in protocol:
            protocol["inception"]["score"] = f"splits of {SPLIT} in the order of the images, logits without bias"
        return protocol | {"devices": jax.device_count()}


def load_networks(*, inception: Path | None = None, reconstruction_metrics: bool = False) -> EvaluationNetworks:
    """Loads the networks whose weights are available.

    Args:
      inception: Inception's published file; by default the cache's.
      reconstruction_metrics: whether to load the networks of reconstruction metrics too.

    Raises:
      UserError: a given file that is missing or damaged.
    """
    found, missing = {}, {}
    for name, load in feature_networks.items():
        file = inception if name == "inception" else None
        try:
            found[name] = load(file)
        except UserError as error:
            if file is not None:
                raise
            missing[name] = str(error)
    loaded = {}
    if reconstruction_metrics:
        for name, metric in metrics.reconstruction.items():
            if metric.load is None:
                continue
            try:
                params = metric.load()
            except UserError as error:
                missing[name] = str(error)
            else:
                sha256 = {weights: networks[weights].published_sha256 for weights in metric.weights}
                loaded[name] = MetricNetwork(params=params, sha256=sha256)
    return EvaluationNetworks(features=FeatureNetworks(found), reconstruction=loaded, missing=missing)
