"""Pictures of codes: usage of each entry, and mutual information of sub-codebooks."""

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fqgan_jax.evaluation.metrics import CodeSet
from fqgan_jax.evaluation.protocol import Measurement
from fqgan_jax.pictures.figures import new_figure, save_figure

SHOWN_CODEBOOKS = 8  # more have no legend and no numbers


def code_pictures(measured: Measurement, codebook_size: int, folder: Path) -> dict[Path, str]:
    """Writes the PNGs of measured codes into a folder; returns their captions."""
    assert measured.codes is not None
    codes = CodeSet(codes=measured.codes, codebook_size=codebook_size)
    save_usage(codes, folder / "usage.png")
    pictures = {folder / "usage.png": "How often each entry of each sub-codebook is chosen."}
    K = measured.codes.shape[-1]
    if K > 1:
        path = folder / "mutual_information.png"
        save_mutual_information(measured.evaluation.results, path, num_codebooks=K, codebook_size=codebook_size)
        pictures[path] = "Mutual information between sub-codebooks; underestimated if images are few."
    return pictures


def save_usage(codes: CodeSet, path: Path) -> None:
    """Plots how often each entry was chosen, most frequent first, a line for each sub-codebook."""
    figure, axes = new_figure(6, 4)
    for k, counts in enumerate(codes.counts):
        used = np.sort(counts[counts > 0])[::-1]
        share = len(used) / codes.codebook_size
        axes.plot(np.arange(1, len(used) + 1), used / counts.sum(), label=f"{k} ({share:.0%} used)")
    axes.axhline(1 / codes.codebook_size, color="grey", linestyle=":", label="uniform")
    axes.set(xscale="log", yscale="log", xlabel="entry, by frequency", ylabel="share of positions")
    if len(codes.counts) <= SHOWN_CODEBOOKS:
        axes.legend(fontsize=8, title="sub-codebook", title_fontsize=8)
    save_figure(figure, path)


def save_mutual_information(
    results: Mapping[str, float], path: Path, *, num_codebooks: int, codebook_size: int
) -> None:
    """Plots the mutual information (nats) between sub-codebooks, from an evaluation's results, as a matrix."""
    matrix = np.full((num_codebooks, num_codebooks), np.nan)
    for i, j in itertools.combinations(range(num_codebooks), 2):
        matrix[i, j] = matrix[j, i] = results[f"mutual_information/{i}-{j}"]
    side = max(3.5, 0.5 * num_codebooks + 1)
    figure, axes = new_figure(side, side)
    # The scale ends at the mutual information of equal codes, uniformly distributed.
    shown = axes.imshow(matrix, cmap="Blues", vmin=0, vmax=np.log(codebook_size))
    if num_codebooks <= SHOWN_CODEBOOKS:
        for i, j in itertools.permutations(range(num_codebooks), 2):
            axes.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=8)
    axes.set(xticks=range(num_codebooks), yticks=range(num_codebooks), xlabel="sub-codebook", ylabel="sub-codebook")
    figure.colorbar(shown, label="nats")
    save_figure(figure, path)
