"""Evaluation of a tokenizer by its reconstructions and its codes."""

from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from fqgan_jax.api import Tokenizer
from fqgan_jax.data.pixels import to_float, to_uint8
from fqgan_jax.data.stream import Batch
from fqgan_jax.errors import UserError
from fqgan_jax.evaluation.features import FeatureSet, Measured
from fqgan_jax.evaluation.image_set import ImageSet
from fqgan_jax.evaluation.metrics.codebooks import code_statistics
from fqgan_jax.evaluation.metrics.reconstruction import psnr, ssim
from fqgan_jax.evaluation.networks import EvaluationNetworks, feature_results
from fqgan_jax.evaluation.protocol import Evaluation
from fqgan_jax.evaluation.reference import Reference, reference_of
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.pretrained.lpips import LPIPS
from fqgan_jax.sharding.passes import Step, rows_of_examples

PAIRS = "of images in [0, 1], clipped, before rounding; data range 1, SSIM's window Gaussian of 11"


def evaluate_tokenizer(
    tokenizer: Tokenizer,
    images: ImageSet,
    *,
    reference: Reference | None,
    networks: EvaluationNetworks,
    batch_size: int,
) -> Measured:
    """rFID (against the originals where there is no other reference), inception score, PSNR, SSIM, LPIPS, codes.

    It computes in float32: bfloat16's rounding depends on how a batch is spread over devices.

    Raises:
      UserError: a size that the tokenizer's downsampling does not divide, or not one image that can be read.
    """
    f = tokenizer.downsampling
    if images.size % f:
        raise UserError(
            f"Images of size {images.size} do not divide by the tokenizer's f = {f}: choose another --size."
        )
    measured = measure_tokenizer(
        tokenizer.module,
        tokenizer.params,
        images,
        reference=reference,
        networks=networks,
        batch_size=batch_size,
    )
    protocol = {"task": "tokenizer", "tokenizer": tokenizer.fingerprint, **measured.evaluation.protocol}
    return measured._replace(evaluation=measured.evaluation._replace(protocol=protocol))


def measure_tokenizer(
    module: FQGAN,
    params: PyTree,
    images: ImageSet,
    *,
    reference: Reference | None,
    networks: EvaluationNetworks,
    batch_size: int,
    mesh: Mesh | None = None,
) -> Measured:
    """What `evaluate_tokenizer` gives, of parameters in training; its protocol does not identify them.

    Args:
      mesh: where the parameters lie; by default all devices.

    Raises:
      UserError: not one image can be read.
    """
    network = networks.inception
    arguments = {"tokenizer": params, "lpips": networks.lpips, "inception": network and network.params}
    step = _step(module.clone(dtype=jnp.float32), network and network.apply, reference is None)
    sets = defaultdict(FeatureSet)
    columns = defaultdict(list)
    count = len(images)
    for rows in rows_of_examples(
        step, arguments, images.batches, batch_size=batch_size, count=count, title="reconstructions", mesh=mesh
    ):
        for name, features in rows.pop("features").items():
            sets[name].add(features)
        for name, values in rows.items():
            columns[name].append(values)
    if not columns:
        raise UserError(f"None of the images of {images.name} can be read. {images.skipped.report()}")
    values = {name: np.concatenate(parts) for name, parts in columns.items()}
    codes, labels = values.pop("codes"), values.pop("label")

    if "originals" in sets:
        reference = reference_of(sets["originals"], {"name": "the same images"})
    found, missing = feature_results(sets.get("reconstructions"), reference, ("fid",), networks)
    results = found | {name: float(np.mean(each, dtype=np.float64)) for name, each in values.items()}
    if networks.lpips is None:
        missing["lpips"] = networks.missing["lpips"]
    protocol = {"data": images.protocol(len(codes)), "dtype": "float32", "psnr, ssim": PAIRS}
    protocol |= {"lpips": networks.lpips_sha256} | networks.protocol(reference)
    named = lambda numbers: {{"fid": "rfid"}.get(name, name): number for name, number in numbers.items()}
    results = named(results) | code_statistics(codes, module.codebook_size)
    return Measured(Evaluation(results, named(missing), protocol), sets.get("reconstructions"), codes, labels)


@lru_cache(maxsize=2)  # the same function again is not compiled again, at every evaluation of a training run
def _step(module: FQGAN, network: Callable | None, with_originals: bool) -> Step:
    """Per image: its codes, distances from its reconstruction, and features as far as there is a network."""

    def step(params: PyTree, batch: Batch) -> dict[str, Array]:
        original = to_float(batch["image"])
        codes = module.apply({"params": params["tokenizer"]}, original, method="encode")
        decoded = jnp.clip(module.apply({"params": params["tokenizer"]}, codes, method="decode"), -1, 1)
        rows = {"codes": codes, "label": batch["label"], "features": {}}
        rows |= {"psnr": psnr(decoded, original), "ssim": ssim(decoded, original)}
        if params["lpips"] is not None:
            rows["lpips"] = LPIPS().apply({"params": params["lpips"]}, decoded, original)
        if network:
            rows["features"]["reconstructions"] = network(params["inception"], to_uint8(decoded))
        if network and with_originals:
            rows["features"]["originals"] = network(params["inception"], batch["image"])
        return rows

    return step


def reconstructions(
    module: FQGAN, params: PyTree, images: ImageSet, *, mesh: Mesh | None = None
) -> tuple[Float[np.ndarray, "n H W 3"], Float[np.ndarray, "n H W 3"]]:
    """The originals and their reconstructions, in [-1, 1]."""
    count = len(images)
    pairs = rows_of_examples(
        _pairs(module), params, images.batches, batch_size=count, count=count, title="pictures", mesh=mesh
    )
    return tuple(np.concatenate(side) for side in zip(*pairs, strict=True))


@lru_cache(maxsize=1)
def _pairs(module: FQGAN) -> Step:
    def step(params: PyTree, batch: Batch) -> tuple[Array, Array]:
        original = to_float(batch["image"])
        codes = module.apply({"params": params}, original, method="encode")
        return original, jnp.clip(module.apply({"params": params}, codes, method="decode"), -1, 1)

    return step
