"""The networks that describe images for FID and other feature metrics.

A row of `feature_networks` loads one of them; a metric names the network whose features it takes.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree, UInt8

from fqgan_jax.config import Registry
from fqgan_jax.data.pixels import to_float
from fqgan_jax.evaluation.image_set import ImageSet
from fqgan_jax.evaluation.metrics import FeatureSet, ImageFeatures
from fqgan_jax.files import sha256_of
from fqgan_jax.models.applying import apply
from fqgan_jax.pretrained import efficientnet_lite, inception
from fqgan_jax.pretrained.weights import networks
from fqgan_jax.sharding.passes import rows_of_examples

RESIZE = f"bilinear to {inception.SIZE} (source = target * in / out, no half-pixel offset, no antialiasing)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureNetwork:
    """A frozen network that describes images.

    Attributes:
      apply: pure function of parameters and pixels (uint8 `[B, H, W, 3]`); see `ImageFeatures` for the kinds it gives.
      params: its parameters.
      sha256: SHA-256 of the file they come from.
      protocol: what else its numbers depend on.
    """

    apply: Callable[[PyTree, UInt8[Array, "B H W 3"]], ImageFeatures]
    params: PyTree
    sha256: str
    protocol: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class FeatureNetworks(Mapping[str, FeatureNetwork]):
    """Some of the networks, by the names of their rows."""

    by_name: Mapping[str, FeatureNetwork] = dataclasses.field(default_factory=dict)

    def __getitem__(self, name: str) -> FeatureNetwork:
        return self.by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name)

    def __len__(self) -> int:
        return len(self.by_name)

    @property
    def params(self) -> dict[str, PyTree]:
        """Their parameters."""
        return {name: network.params for name, network in self.items()}

    @property
    def functions(self) -> tuple[tuple[str, Callable], ...]:
        """What they compute, for `describe`; the same networks give equal tuples."""
        return tuple((name, network.apply) for name, network in self.items())

    def protocol(self) -> dict[str, dict]:
        """Returns what their numbers depend on."""
        return {name: {**network.protocol, "sha256": network.sha256} for name, network in self.items()}


def describe(
    functions: tuple[tuple[str, Callable], ...], params: Mapping[str, PyTree], pixels: UInt8[Array, "B H W 3"]
) -> dict[str, Float[Array, "B d"]]:
    """Returns the features of images by several networks; pure.

    Args:
      functions: `FeatureNetworks.functions`.
      params: `FeatureNetworks.params`.
      pixels: the images.
    """
    described: dict[str, Float[Array, "B d"]] = {}
    for name, function in functions:
        described.update(function(params[name], pixels))
    return described


# A row loads a network, from a given file or from where its weights are kept; it raises `UserError` without them.
feature_networks: Registry[Callable[[Path | None], FeatureNetwork]] = Registry("feature network")


@feature_networks("inception")
def load_inception_network(file: Path | None = None) -> FeatureNetwork:
    """Loads the Inception network of FID from a published file, or from the cache if none is given.

    Raises:
      UserError: missing or damaged weights.
    """
    params = inception.load_inception(file)
    sha256 = networks[inception.NAME].published_sha256 if file is None else sha256_of(file)
    protocol = {"network": inception.NAME, "resize": RESIZE, "input": "(pixel - 128) / 128"}
    return FeatureNetwork(apply=inception_features, params=params, sha256=sha256, protocol=protocol)


def inception_features(params: PyTree, pixels: UInt8[Array, "B H W 3"]) -> ImageFeatures:
    """Returns features of the FID's Inception network; logits without bias."""
    features = apply(inception.Inception(), params, inception.preprocess(pixels))
    return {"pool": features.pool, "spatial": features.spatial, "logits": features.logits_without_bias}


@feature_networks(efficientnet_lite.NAME)
def load_lite_network(file: Path | None = None) -> FeatureNetwork:
    """Loads EfficientNet-Lite0 from a published file, or from the installed package if none is given.

    Raises:
      UserError: its package is not installed.
    """
    params = efficientnet_lite.load_efficientnet_lite(file)
    sha256 = networks[efficientnet_lite.NAME].published_sha256 if file is None else sha256_of(file)
    protocol = {"resize": f"bicubic to {efficientnet_lite.SIZE}", "input": "(pixel - 127) / 128"}
    return FeatureNetwork(apply=lite_features, params=params, sha256=sha256, protocol=protocol)


def lite_features(params: PyTree, pixels: UInt8[Array, "B H W 3"]) -> ImageFeatures:
    """Returns the last features and the logits of EfficientNet-Lite0."""
    network, seen = efficientnet_lite.EfficientNetLite0(), efficientnet_lite.preprocess(to_float(pixels))
    features = apply(network, params, seen, method="features")
    return {"lite0": features, "lite0_logits": apply(network, params, features, method="classify")}


def features_of(
    images: ImageSet, networks: FeatureNetworks, *, batch_size: int, title: str, mesh: Mesh | None = None
) -> FeatureSet:
    """Computes features of every readable image in one pass.

    Args:
      images: the images to describe.
      networks: networks that compute the features.
      batch_size: size of the global batch.
      title: title of the progress bar.
      mesh: the devices to use; by default all devices.
    """
    collected, functions = FeatureSet(), networks.functions

    def step(params, batch):
        return describe(functions, params, batch["image"])

    for rows in rows_of_examples(
        step, networks.params, images.batches, batch_size=batch_size, count=len(images), title=title, mesh=mesh
    ):
        collected.add(rows)
    return collected
