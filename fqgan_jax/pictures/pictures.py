"""Pictures that explain a model: what it loses or draws, what each sub-codebook holds, how its codes are used."""

import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from fqgan_jax.api import Generator, Tokenizer
from fqgan_jax.data.pixels import to_float
from fqgan_jax.evaluation.features import Measured
from fqgan_jax.evaluation.image_set import ImageSet
from fqgan_jax.models.distances import l2_normalize
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.pictures.figures import points, save_curves, save_labelled_rows
from fqgan_jax.pictures.maps import save_entry_maps, save_image_map

# The error map's scale: black is none, white this much of the range [-1, 1] or more.
LARGEST_ERROR = 0.5


SHOWN = 8  # images in a row, and sub-codebooks that have a picture of their own
GUIDANCE = (1.0, 2.0, 4.0)  # of the sample grids


def tokenizer_pictures(tokenizer: Tokenizer, images: ImageSet, measured: Measured, folder: Path) -> dict[Path, str]:
    """Writes the PNGs of a tokenizer's evaluation into a folder; returns their captions."""
    batch = next(images.batches(min(SHOWN, len(images))))
    shown = to_float(batch["image"][batch["mask"] > 0])
    save_reconstructions(tokenizer, shown, folder / "reconstructions.png")
    caption = f"Originals, reconstructions, and their mean absolute difference (white: {LARGEST_ERROR} in [-1, 1])."
    pictures = {folder / "reconstructions.png": caption}
    if tokenizer.module.num_codebooks > 1:
        save_codebook_parts(tokenizer, shown, folder / "codebook_parts.png")
        caption = "Reconstructions from each sub-codebook alone, and without each; what is left out takes its mean."
        pictures[folder / "codebook_parts.png"] = caption
    codebooks = np.asarray(l2_normalize(tokenizer.params["quantizer"]["codebooks"]))
    if save_entry_maps(codebooks, measured.codes, folder / "entries.png"):
        pictures[folder / "entries.png"] = "Each sub-codebook's used entries (t-SNE): near ones are alike."
    if save_image_map(measured.codes, measured.labels, images.source.class_names, folder / "images.png"):
        pictures[folder / "images.png"] = "Images by the codes they are made of (t-SNE), coloured by class."
    return pictures | _code_pictures(measured, tokenizer.module.codebook_size, folder)


def generator_pictures(generator: Generator, tokenizer: Tokenizer, measured: Measured, folder: Path) -> dict[Path, str]:
    """Writes the PNGs of a generator's evaluation into a folder; returns their captions."""
    pictures = {}
    protocol, names = measured.evaluation.protocol, generator.class_names[:SHOWN]
    labels = np.repeat(np.arange(len(names)), SHOWN)
    options = {name: value for name, value in protocol["sampling"].items() if name != "guidance"}
    for guidance in GUIDANCE:
        codes = generator.sample(labels, key=jax.random.key(protocol["seed"]), guidance=guidance, **options)
        decoded = np.asarray(tokenizer.decode(codes)).reshape(len(names), SHOWN, *[tokenizer.image_size] * 2, 3)
        path = folder / f"samples_guidance_{guidance:g}.png"
        save_labelled_rows(dict(zip(names, decoded, strict=True)), path)
        pictures[path] = f"Samples, a row per class, guidance {guidance:g}."
    return pictures | _code_pictures(measured, generator.module.codebook_size, folder)


def _code_pictures(measured: Measured, codebook_size: int, folder: Path) -> dict[Path, str]:
    save_usage(measured.codes, codebook_size, folder / "usage.png")
    pictures = {folder / "usage.png": "How often each entry of each sub-codebook is chosen."}
    K = measured.codes.shape[-1]
    if K > 1:
        path = folder / "mutual_information.png"
        save_mutual_information(measured.evaluation.results, K, codebook_size, path)
        pictures[path] = "Mutual information between sub-codebooks; few images against their size raise it."
    return pictures


def save_reconstructions(tokenizer: Tokenizer, images: Float[np.ndarray, "n H W 3"], path: Path) -> None:
    """Originals in [-1, 1], their reconstructions, and where these differ: mean absolute error over the channels."""
    decoded = np.asarray(tokenizer.decode(tokenizer.encode(images)))
    error = np.abs(decoded - images).mean(-1, keepdims=True).repeat(3, axis=-1)
    shown = np.clip(error / LARGEST_ERROR, 0, 1) * 2 - 1
    save_labelled_rows({"original": images, "reconstruction": decoded, "error": shown}, path)


def save_codebook_parts(tokenizer: Tokenizer, images: Float[np.ndarray, "n H W 3"], path: Path) -> None:
    """Reconstructions from each of the first sub-codebooks alone, and with each left out.

    A sub-codebook that is left out gives every position its mean over these images.
    """
    codes = tokenizer.encode(images)
    K = tokenizer.module.num_codebooks
    single = dict(enumerate(np.eye(K)[:SHOWN]))
    kept = {"all": np.ones(K)} | {f"only {k}": row for k, row in single.items()}
    # Of two, one alone is the other left out.
    kept |= {f"without {k}": 1 - row for k, row in single.items()} if K > 2 else {}
    decode = partial(_decode_parts, tokenizer.module, tokenizer.params, codes)
    rows = {name: np.asarray(decode(jnp.asarray(weights))) for name, weights in kept.items()}
    save_labelled_rows({"original": images} | rows, path)


@partial(jax.jit, static_argnums=0)
def _decode_parts(
    module: FQGAN, params: PyTree, codes: Int[Array, "B h w K"], kept: Float[Array, " K"]
) -> Float[Array, "B H W 3"]:
    """Images of the kept sub-codebooks' entries, and of the others' means."""
    tokenizer = module.bind({"params": params})
    quantized = tokenizer.codes_to_entries(codes)
    mean = jnp.mean(quantized, axis=(0, 1, 2))
    return jnp.clip(tokenizer.decode_quantized(jnp.where(kept[:, None] > 0, quantized, mean)), -1, 1)


def save_usage(codes: Int[np.ndarray, "n h w K"], codebook_size: int, path: Path) -> None:
    """How often each entry was chosen, most frequent first, a line per sub-codebook."""
    figure, axes = _figure(6, 4)
    for k in range(codes.shape[-1]):
        counts = np.sort(np.bincount(codes[..., k].reshape(-1), minlength=codebook_size))[::-1]
        used = counts[counts > 0]
        axes.plot(np.arange(1, len(used) + 1), used / counts.sum(), label=f"{k} ({len(used) / codebook_size:.0%} used)")
    axes.axhline(1 / codebook_size, color="grey", linestyle=":", label="all alike")
    axes.set(xscale="log", yscale="log", xlabel="entry, by frequency", ylabel="share of positions")
    if codes.shape[-1] <= SHOWN:
        axes.legend(fontsize=8, title="sub-codebook", title_fontsize=8)
    figure.savefig(path, dpi=110)


def save_mutual_information(results: dict[str, float], num_codebooks: int, codebook_size: int, path: Path) -> None:
    """Matrix of the mutual information (nats) between sub-codebooks, from an evaluation's results."""
    matrix = np.full((num_codebooks,) * 2, np.nan)
    for i, j in itertools.combinations(range(num_codebooks), 2):
        matrix[i, j] = matrix[j, i] = results[f"mutual_information/{i}-{j}"]
    figure, axes = _figure(*[max(3.5, 0.5 * num_codebooks + 1)] * 2)
    # The scale ends where one code tells the other.
    shown = axes.imshow(matrix, cmap="Blues", vmin=0, vmax=np.log(codebook_size))
    if num_codebooks <= SHOWN:
        for i, j in itertools.permutations(range(num_codebooks), 2):
            axes.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=8)
    axes.set(xticks=range(num_codebooks), yticks=range(num_codebooks), xlabel="sub-codebook", ylabel="sub-codebook")
    figure.colorbar(shown, label="nats")
    figure.savefig(path, dpi=110)


def save_overlaid_curves(runs: dict[str, Sequence[dict]], path: Path) -> None:
    """Training curves of several runs, a panel for each of the usual measures that any of them logged."""
    wanted = ("reconstruction", "loss", "next_code/0", "validation/psnr", "validation/ssim", "perplexity/0")
    panels = {name: {run: points(log, name) for run, log in runs.items()} for name in wanted}
    save_curves({name: curves for name, curves in panels.items() if any(curves.values())}, path)


def _figure(width: float, height: float):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()
