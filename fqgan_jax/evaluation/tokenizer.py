"""Evaluation of a tokenizer by its reconstructions and its codes."""

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PyTree

from fqgan_jax.api import Tokenizer
from fqgan_jax.data.pixels import to_float, to_uint8
from fqgan_jax.data.transforms import height_and_width
from fqgan_jax.errors import check
from fqgan_jax.evaluation import metrics
from fqgan_jax.evaluation.features import describe
from fqgan_jax.evaluation.image_set import ImageSet
from fqgan_jax.evaluation.metrics import FeatureSet, Reference
from fqgan_jax.evaluation.networks import EvaluationNetworks
from fqgan_jax.evaluation.protocol import Evaluation, Measurement
from fqgan_jax.evaluation.reference import reference_of
from fqgan_jax.evaluation.results import code_results, feature_results
from fqgan_jax.models.applying import apply
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.sharding.passes import DeviceBatch, Step, rows_of_examples

PAIRS = "of images in [0, 1], clipped, before rounding; data range 1, SSIM's window Gaussian of 11"


def evaluate_tokenizer(
    tokenizer: Tokenizer,
    images: ImageSet,
    *,
    reference: Reference | None,
    networks: EvaluationNetworks,
    batch_size: int,
) -> Measurement:
    """Measures a tokenizer: reconstruction metrics, rFID, inception score and metrics of its codes.

    Computes in float32, because bfloat16 rounding depends on how a batch is split over devices.

    Args:
      tokenizer: the tokenizer to measure.
      images: the images to reconstruct.
      reference: images or statistics that the reconstructions are compared with for rFID; None uses the originals.
      networks: frozen networks of the metrics.
      batch_size: size of the global batch.

    Raises:
      UserError: the tokenizer's downsampling does not divide the image size, or no image can be read.
    """
    f = tokenizer.downsampling
    check(
        all(side % f == 0 for side in height_and_width(images.size)),
        f"The tokenizer's f = {f} does not divide the size {images.size} of the images: choose another --size.",
    )
    measured = measure_tokenizer(
        tokenizer.module, tokenizer.params, images, reference=reference, networks=networks, batch_size=batch_size
    )
    return measured.with_protocol(task="tokenizer", tokenizer=tokenizer.fingerprint)


def measure_tokenizer(
    module: FQGAN,
    params: PyTree,
    images: ImageSet,
    *,
    reference: Reference | None,
    networks: EvaluationNetworks,
    batch_size: int,
    mesh: Mesh | None = None,
) -> Measurement:
    """Measures parameters in training as `evaluate_tokenizer` does; the protocol does not identify them.

    Args:
      module: the tokenizer's module.
      params: its parameters.
      images: the images to reconstruct.
      reference: images or statistics that the reconstructions are compared with for rFID; None uses the originals.
      networks: frozen networks of the metrics.
      batch_size: size of the global batch.
      mesh: the devices that hold the parameters; by default all devices.

    Raises:
      UserError: no image can be read.
    """
    step = _measuring_step(
        module.clone(dtype=jnp.float32),
        reconstruction_metrics=tuple(metrics.reconstruction.items()),
        features=networks.features.functions,
        of_originals=reference is None,
    )
    frozen = {
        "tokenizer": params,
        "metrics": {name: each.params for name, each in networks.reconstruction.items()},
        "features": networks.features.params,
    }
    batches = rows_of_examples(
        step, frozen, images.batches, batch_size=batch_size, count=len(images), title="reconstructions", mesh=mesh
    )
    rows = _gather(batches, images)
    reconstructed = rows.features.get("reconstructions")
    if "originals" in rows.features:
        reference = reference_of(rows.features["originals"], {"name": "the same images"})
    results, missing = feature_results(reconstructed, reference, task="tokenizer", networks=networks)
    for name in metrics.reconstruction:
        if name in rows.metrics:
            results[name] = float(np.mean(rows.metrics[name], dtype=np.float64))
        else:
            missing[name] = networks.missing.get(name, "its network is not loaded")
    results |= code_results(rows.codes, module.codebook_size)
    evaluation = Evaluation(
        results=results,
        missing=missing,
        protocol=_protocol(images, len(rows.codes), networks) | networks.protocol(reference),
    )
    return Measurement(evaluation=evaluation, features=reconstructed, codes=rows.codes, labels=rows.labels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Rows:
    """The outputs of the measuring step for all images."""

    codes: Int[np.ndarray, "n h w K"]
    labels: Int[np.ndarray, " n"]
    metrics: dict[str, Float[np.ndarray, " n"]]
    features: dict[str, FeatureSet]


def _gather(batches: Iterable[dict], images: ImageSet) -> _Rows:
    """Collects the rows of all batches.

    Raises:
      UserError: no image can be read.
    """
    codes, labels = [], []
    values: dict[str, list[np.ndarray]] = defaultdict(list)
    features: dict[str, FeatureSet] = defaultdict(FeatureSet)
    for rows in batches:
        codes.append(rows["codes"])
        labels.append(rows["label"])
        for name, row in rows["metrics"].items():
            values[name].append(row)
        for name, row in rows["features"].items():
            features[name].add(row)
    check(bool(codes), f"None of the images of {images.name} can be read. {images.skipped.report()}")
    return _Rows(
        codes=np.concatenate(codes),
        labels=np.concatenate(labels),
        metrics={name: np.concatenate(parts) for name, parts in values.items()},
        features=features,
    )


def _protocol(images: ImageSet, counted: int, networks: EvaluationNetworks) -> dict:
    """Returns what the reconstruction metrics depend on."""
    protocol: dict[str, Any] = {"data": images.protocol(counted), "dtype": "float32", "psnr, ssim": PAIRS}
    for name, metric in metrics.reconstruction.items():
        if metric.load is not None:
            network = networks.reconstruction.get(name)
            protocol[name] = None if network is None else network.sha256
    return protocol


# The same arguments give the same function, which JAX then compiles once in a training run.
@functools.lru_cache(maxsize=2)
def _measuring_step(
    module: FQGAN,
    *,
    reconstruction_metrics: tuple[tuple[str, metrics.ReconstructionMetric], ...],
    features: tuple[tuple[str, Callable], ...],
    of_originals: bool,
) -> Step:
    """Returns a step that gives, per image, codes, reconstruction metrics, and features if there are networks."""

    def step(params: PyTree, batch: DeviceBatch) -> dict[str, Any]:
        original = to_float(batch["image"])
        codes, reconstruction = _reconstruct(module, params["tokenizer"], original)
        rows: dict[str, Any] = {"codes": codes, "label": batch["label"], "metrics": {}, "features": {}}
        for name, metric in reconstruction_metrics:
            if metric.load is None:
                values = metric.function(reconstruction, original)
            elif name in params["metrics"]:
                values = metric.function(reconstruction, original, params=params["metrics"][name])
            else:
                continue
            shape = jnp.shape(values)
            check(
                shape == original.shape[:1],
                f"The reconstruction metric {name!r} gives an array of shape {shape} for {len(original)} images: "
                "it must give one number for each.",
            )
            rows["metrics"][name] = values
        if features:
            rows["features"]["reconstructions"] = describe(features, params["features"], to_uint8(reconstruction))
            if of_originals:
                rows["features"]["originals"] = describe(features, params["features"], batch["image"])
        return rows

    return step


def reconstructions(
    module: FQGAN, params: PyTree, images: ImageSet, *, mesh: Mesh | None = None
) -> tuple[Float[np.ndarray, "n H W 3"], Float[np.ndarray, "n H W 3"]]:
    """Returns a few originals and their reconstructions, in [-1, 1], computed as one batch."""
    count = len(images)
    pairs = list(
        rows_of_examples(
            _reconstruction_step(module),
            params,
            images.batches,
            batch_size=count,
            count=count,
            title="pictures",
            mesh=mesh,
        )
    )
    originals, reconstructed = zip(*pairs, strict=True)
    return np.concatenate(originals), np.concatenate(reconstructed)


@functools.lru_cache(maxsize=1)
def _reconstruction_step(module: FQGAN) -> Step:
    """Returns a step that gives, per image, the original and its reconstruction."""

    def step(params: PyTree, batch: DeviceBatch) -> tuple[Array, Array]:
        original = to_float(batch["image"])
        return original, _reconstruct(module, params, original)[1]

    return step


def _reconstruct(
    module: FQGAN, params: PyTree, images: Float[Array, "B H W 3"]
) -> tuple[Int[Array, "B h w K"], Float[Array, "B H W 3"]]:
    """Returns the codes of images in [-1, 1] and the images that they decode to, clipped."""
    codes = apply(module, params, images, method="encode")
    return codes, jnp.clip(apply(module, params, codes, method="decode"), -1, 1)
