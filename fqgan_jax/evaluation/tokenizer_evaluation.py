"""Evaluation of a tokenizer by its reconstructions and its codes."""

from collections import defaultdict

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from fqgan_jax.api import Tokenizer
from fqgan_jax.data.loader import Batch
from fqgan_jax.data.transforms import to_float
from fqgan_jax.errors import UserError
from fqgan_jax.evaluation.codebooks import code_statistics
from fqgan_jax.evaluation.features import FeatureSet, Measured
from fqgan_jax.evaluation.figures import to_uint8
from fqgan_jax.evaluation.frozen import Frozen, feature_results
from fqgan_jax.evaluation.images import ImageSet
from fqgan_jax.evaluation.protocol import Evaluation
from fqgan_jax.evaluation.reconstruction import psnr, ssim
from fqgan_jax.evaluation.reference import Reference, reference_of
from fqgan_jax.evaluation.sharded_pass import Step, rows_of_examples
from fqgan_jax.teachers.vgg import LPIPS

PAIRS = "of images in [0, 1], clipped, before rounding; data range 1, SSIM's window Gaussian of 11"


def evaluate_tokenizer(
    tokenizer: Tokenizer, images: ImageSet, reference: Reference | None, frozen: Frozen, batch_size: int
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
    network = frozen.inception
    params = {"tokenizer": tokenizer.params, "lpips": frozen.lpips, "inception": network and network.params}
    step = _step(tokenizer, frozen, with_originals=reference is None)
    sets = defaultdict(FeatureSet)
    columns = defaultdict(list)
    for rows in rows_of_examples(step, params, images.batches, batch_size, len(images), "reconstructions"):
        for name, features in rows.pop("features").items():
            sets[name].add(features)
        for name, values in rows.items():
            columns[name].append(values)
    if not columns:
        raise UserError(f"None of the images of {images.name} can be read. {images.skipped.report()}")
    values = {name: np.concatenate(parts) for name, parts in columns.items()}
    codes = values.pop("codes")

    if "originals" in sets:
        reference = reference_of(sets["originals"], {"name": "the same images"})
    found, missing = feature_results(sets.get("reconstructions"), reference, ("fid",), frozen)
    results = found | {name: float(np.mean(each, dtype=np.float64)) for name, each in values.items()}
    if frozen.lpips is None:
        missing["lpips"] = frozen.missing["lpips"]
    protocol = {"task": "tokenizer", "tokenizer": tokenizer.fingerprint, "data": images.protocol(len(codes))}
    protocol |= {"dtype": "float32", "psnr, ssim": PAIRS, "lpips": frozen.lpips_sha256} | frozen.protocol(reference)
    named = lambda numbers: {{"fid": "rfid"}.get(name, name): number for name, number in numbers.items()}
    results = named(results) | code_statistics(codes, tokenizer.module.codebook_size)
    return Measured(Evaluation(results, named(missing), protocol), sets.get("reconstructions"), codes)


def _step(tokenizer: Tokenizer, frozen: Frozen, with_originals: bool) -> Step:
    """Per image: its codes, distances from its reconstruction, and features as far as there is a network."""
    module, network = tokenizer.module.clone(dtype=jnp.float32), frozen.inception

    def step(params: PyTree, batch: Batch) -> dict[str, Array]:
        original = to_float(batch["image"])
        codes = module.apply({"params": params["tokenizer"]}, original, method="encode")
        decoded = jnp.clip(module.apply({"params": params["tokenizer"]}, codes, method="decode"), -1, 1)
        rows = {"codes": codes, "psnr": psnr(decoded, original), "ssim": ssim(decoded, original), "features": {}}
        if params["lpips"] is not None:
            rows["lpips"] = LPIPS().apply({"params": params["lpips"]}, decoded, original)
        if network:
            rows["features"]["reconstructions"] = network.apply(params["inception"], to_uint8(decoded))
        if network and with_originals:
            rows["features"]["originals"] = network.apply(params["inception"], batch["image"])
        return rows

    return step
