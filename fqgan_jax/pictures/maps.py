"""Maps (t-SNE) of what a tokenizer has learned: its codebooks' entries, and images by the codes they are made of."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

SHOWN = 8  # sub-codebooks with a map of their own
LARGEST_MAP = 4096  # points
CLASSES = 10  # that have a colour


def save_entry_maps(codebooks: Float[np.ndarray, "K N d"], codes: Int[np.ndarray, "n h w K"], path: Path) -> bool:
    """A map of the used entries of each of the first sub-codebooks, coloured by how often they are chosen.

    Returns whether there was anything to draw: a map needs three entries.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    maps = {}
    for k, codebook in enumerate(codebooks[:SHOWN]):
        counts = np.bincount(codes[..., k].reshape(-1), minlength=len(codebook))
        used = np.argsort(-counts, kind="stable")[: min(LARGEST_MAP, np.count_nonzero(counts))]
        if len(used) >= 3:
            maps[k] = codebook[used], counts[used] / counts.sum()
    if not maps:
        return False
    columns = min(4, len(maps))
    rows = -(-len(maps) // columns)
    figure = Figure(figsize=(3.6 * columns + 0.8, 3.6 * rows), layout="constrained")
    everything = np.concatenate([share for _, share in maps.values()])
    scale = LogNorm(everything.min(), max(everything.max(), everything.min() * 1.01))
    for place, (k, (entries, share)) in enumerate(maps.items()):
        axes = figure.add_subplot(rows, columns, place + 1)
        shown = axes.scatter(*tsne(entries).T, c=share, s=5, cmap="viridis", norm=scale)
        axes.set(title=f"sub-codebook {k}", xticks=[], yticks=[])
    figure.colorbar(shown, ax=figure.axes, label="share of positions")
    figure.savefig(path, dpi=110)
    return True


def save_image_map(
    codes: Int[np.ndarray, "n h w K"], labels: Int[np.ndarray, " n"], class_names: Sequence[str], path: Path
) -> bool:
    """A map of images, each by how often it holds each code of each sub-codebook, coloured by class.

    The most frequent classes have a colour, the others are grey. Returns whether there was anything to draw: a map
    needs three images.
    """
    from matplotlib.figure import Figure

    codes, labels = codes[:LARGEST_MAP], labels[:LARGEST_MAP]
    if len(codes) < 3:
        return False
    places = tsne(code_histograms(codes))
    found, counts = np.unique(labels, return_counts=True)
    coloured = sorted(found[np.argsort(-counts, kind="stable")][:CLASSES])
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot()
    grey = ~np.isin(labels, coloured)
    axes.scatter(*places[grey].T, s=8, color="lightgrey", label="others" if grey.any() else None)
    for number, label in enumerate(coloured):
        axes.scatter(*places[labels == label].T, s=12, color=f"C{number}", label=class_names[label])
    axes.set(xticks=[], yticks=[])
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=110)
    return True


def code_histograms(codes: Int[np.ndarray, "n h w K"]):
    """How often each image holds each code of each sub-codebook: a sparse matrix [n, codes in use]."""
    from scipy.sparse import csr_matrix

    n, K = len(codes), codes.shape[-1]
    flat = codes.reshape(n, -1, K).astype(np.int64) * K + np.arange(K)
    used, columns = np.unique(flat, return_inverse=True)
    rows = np.repeat(np.arange(n), flat[0].size)
    return csr_matrix((np.ones(len(rows), np.float32), (rows, columns.reshape(-1))), shape=(n, len(used)))


def tsne(points) -> Float[np.ndarray, "n 2"]:
    """Points in the plane whose neighbours are those in the original space; the same ones each time."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if min(points.shape) > 50:  # the first directions say which points are near, at a fraction of the time
        points = TruncatedSVD(50, random_state=0).fit_transform(points)
    points = points.toarray() if hasattr(points, "toarray") else points
    perplexity = min(30, (len(points) - 1) / 3)
    start = "pca" if min(points.shape) > 1 else "random"
    with threadpool_limits(1):  # its threads wait for each other at every step, for ever where cores are shared
        return TSNE(perplexity=perplexity, init=start, random_state=0).fit_transform(np.asarray(points, np.float32))
