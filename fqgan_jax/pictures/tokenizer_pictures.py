"""Pictures of a tokenizer: errors of its reconstructions, and the content of each sub-codebook."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from fqgan_jax.api import Tokenizer
from fqgan_jax.data.pixels import to_float
from fqgan_jax.evaluation.image_set import ImageSet
from fqgan_jax.evaluation.protocol import Measurement
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.models.quantizers.distances import l2_normalize
from fqgan_jax.pictures.code_pictures import code_pictures
from fqgan_jax.pictures.figures import save_labelled_rows
from fqgan_jax.pictures.maps import save_entry_maps, save_image_map

LARGEST_ERROR = 0.5  # in the range [-1, 1]; the error map shows it, and more, as white
SHOWN_IMAGES = 8  # in a row
SHOWN_CODEBOOKS = 8  # that have a row of their own


def tokenizer_pictures(
    tokenizer: Tokenizer, images: ImageSet, measured: Measurement, *, folder: Path
) -> dict[Path, str]:
    """Writes the PNGs of a tokenizer's evaluation into a folder; returns their captions."""
    codes, labels = measured.codes, measured.labels
    assert codes is not None
    assert labels is not None
    batch = next(images.batches(min(SHOWN_IMAGES, len(images))))
    shown = to_float(batch["image"][batch["mask"] > 0])
    path = folder / "reconstructions.png"
    save_reconstructions(tokenizer, shown, path)
    caption = f"Originals, reconstructions, and their mean absolute difference (white: {LARGEST_ERROR} in [-1, 1])."
    pictures = {path: caption}
    if tokenizer.module.num_codebooks > 1:
        path = folder / "codebook_parts.png"
        save_codebook_parts(tokenizer, shown, path)
        caption = (
            "Reconstructions from each sub-codebook alone, and without each; what is left out is replaced by its mean."
        )
        pictures[path] = caption
    codebooks = tokenizer.params.get("quantizer", {}).get("codebooks")  # not every quantizer has them
    path = folder / "entries.png"
    if codebooks is not None and save_entry_maps(np.asarray(l2_normalize(codebooks)), codes, path):
        pictures[path] = "Each sub-codebook's used entries (t-SNE): near ones are alike."
    path = folder / "images.png"
    if save_image_map(codes, labels, class_names=images.source.class_names, path=path):
        pictures[path] = "Images by the codes they are made of (t-SNE), coloured by class."
    return pictures | code_pictures(measured, tokenizer.module.codebook_size, folder)


def save_reconstructions(tokenizer: Tokenizer, images: Float[np.ndarray, "n H W 3"], path: Path) -> None:
    """Writes originals in [-1, 1], their reconstructions, and the mean absolute error over the channels."""
    decoded = np.asarray(tokenizer.decode(tokenizer.encode(images)))
    error = np.abs(decoded - images).mean(-1, keepdims=True).repeat(3, axis=-1)
    error_map = np.clip(error / LARGEST_ERROR, 0, 1) * 2 - 1
    save_labelled_rows({"original": images, "reconstruction": decoded, "error": error_map}, path)


def save_codebook_parts(tokenizer: Tokenizer, images: Float[np.ndarray, "n H W 3"], path: Path) -> None:
    """Writes reconstructions from each of the first sub-codebooks alone, and with each left out.

    A sub-codebook that is left out gives every position its mean over these images.
    """
    codes = tokenizer.encode(images)
    K = tokenizer.module.num_codebooks
    single = dict(enumerate(np.eye(K, dtype=bool)[:SHOWN_CODEBOOKS]))
    kept = {"all": np.ones(K, bool)} | {f"only {k}": row for k, row in single.items()}
    if K > 2:  # of two, one alone is the other left out
        kept |= {f"without {k}": ~row for k, row in single.items()}
    rows = {
        name: np.asarray(decode_parts(tokenizer.module, tokenizer.params, codes, kept=jnp.asarray(mask)))
        for name, mask in kept.items()
    }
    save_labelled_rows({"original": images} | rows, path)


@partial(jax.jit, static_argnums=0)
def decode_parts(
    module: FQGAN, params: PyTree, codes: Int[Array, "B h w K"], *, kept: Bool[Array, " K"]
) -> Float[Array, "B H W 3"]:
    """Decodes the entries of the kept sub-codebooks, and the means of the others, to images in [-1, 1]."""
    tokenizer = module.bind({"params": params})
    quantized = tokenizer.codes_to_entries(codes)
    mean = jnp.mean(quantized, axis=(0, 1, 2))
    return jnp.clip(tokenizer.decode_quantized(jnp.where(kept[:, None], quantized, mean)), -1, 1)
