"""t-SNE maps of what a tokenizer has learned: its codebooks' entries, and images by the codes they are made of."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from fqgan_jax.pictures.figures import new_figure, new_panels, save_figure

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

SHOWN_CODEBOOKS = 8  # that have a map of their own
LARGEST_MAP = 4096  # points
SMALLEST_MAP = 3  # points
COLOURED_CLASSES = 10


def save_entry_maps(codebooks: Float[np.ndarray, "K N d"], codes: Int[np.ndarray, "n h w K"], path: Path) -> bool:
    """Draws a map of the used entries of each of the first sub-codebooks, coloured by how often they are chosen.

    Returns:
      Whether there was anything to draw: a map needs three entries.
    """
    from matplotlib.colors import LogNorm

    maps = {}
    for k, codebook in enumerate(codebooks[:SHOWN_CODEBOOKS]):
        counts = np.bincount(codes[..., k].reshape(-1), minlength=len(codebook))
        used = np.argsort(-counts, kind="stable")[: min(LARGEST_MAP, np.count_nonzero(counts))]
        if len(used) >= SMALLEST_MAP:
            maps[k] = codebook[used], counts[used] / counts.sum()
    if not maps:
        return False
    figure, plots = new_panels(len(maps), columns=4, width=3.6, height=3.6)
    figure.set_figwidth(figure.get_figwidth() + 0.8)  # for the colour bar
    shares = np.concatenate([share for _, share in maps.values()])
    scale = LogNorm(shares.min(), max(shares.max(), shares.min() * 1.01))
    for axes, (k, (entries, share)) in zip(plots, maps.items(), strict=True):
        x, y = tsne(entries).T
        shown = axes.scatter(x, y, c=share, s=5, cmap="viridis", norm=scale)
        axes.set(title=f"sub-codebook {k}", xticks=[], yticks=[])
    figure.colorbar(shown, ax=figure.axes, label="share of positions")
    save_figure(figure, path)
    return True


def save_image_map(
    codes: Int[np.ndarray, "n h w K"], labels: Int[np.ndarray, " n"], *, class_names: Sequence[str], path: Path
) -> bool:
    """Draws a map of images, each by how often it holds each code of each sub-codebook, coloured by class.

    The most frequent classes have a colour, the others are grey.

    Returns:
      Whether there was anything to draw: a map needs three images.
    """
    codes, labels = codes[:LARGEST_MAP], labels[:LARGEST_MAP]
    if len(codes) < SMALLEST_MAP:
        return False
    x, y = tsne(code_histograms(codes)).T
    found, counts = np.unique(labels, return_counts=True)
    coloured = sorted(found[np.argsort(-counts, kind="stable")][:COLOURED_CLASSES])
    figure, axes = new_figure(7, 5)
    others = ~np.isin(labels, coloured)
    if others.any():
        axes.scatter(x[others], y[others], s=8, color="lightgrey", label="others")
    for number, label in enumerate(coloured):
        shown = labels == label
        axes.scatter(x[shown], y[shown], s=12, color=f"C{number}", label=class_names[label])
    axes.set(xticks=[], yticks=[])
    figure.legend(loc="outside right upper", fontsize=8)
    save_figure(figure, path)
    return True


def code_histograms(codes: Int[np.ndarray, "n h w K"]) -> "csr_matrix":
    """Counts how often each image holds each code of each sub-codebook: a sparse matrix [n, codes in use]."""
    from scipy.sparse import csr_matrix

    n, K = len(codes), codes.shape[-1]
    flat = codes.reshape(n, -1, K).astype(np.int64) * K + np.arange(K)
    used, columns = np.unique(flat, return_inverse=True)
    rows = np.repeat(np.arange(n), flat[0].size)
    return csr_matrix((np.ones(len(rows), np.float32), (rows, columns.reshape(-1))), shape=(n, len(used)))


def tsne(points: "Float[np.ndarray, 'n d'] | csr_matrix") -> Float[np.ndarray, "n 2"]:
    """Returns points in the plane whose neighbours are those in the original space; deterministic."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if min(points.shape) > 50:  # the first directions tell which points are near, in a fraction of the time
        points = TruncatedSVD(50, random_state=0).fit_transform(points)
    if not isinstance(points, np.ndarray):
        points = points.toarray()
    perplexity = min(30, (len(points) - 1) / 3)
    start = "pca" if min(points.shape) > 1 else "random"
    with threadpool_limits(1):  # its threads wait for each other at every step, without end if cores are shared
        return TSNE(perplexity=perplexity, init=start, random_state=0).fit_transform(np.asarray(points, np.float32))
