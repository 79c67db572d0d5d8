"""Codes of an image as coloured maps: entries that are alike have like colours."""

import numpy as np
from jaxtyping import Int, UInt8

from fqgan_jax.api import Tokenizer
from fqgan_jax.api.model import apply_method


def entry_colours(tokenizer: Tokenizer) -> UInt8[np.ndarray, "K N 3"]:
    """Returns a colour for each entry of each sub-codebook: the ranks of its first three principal components."""
    K, N = tokenizer.module.num_codebooks, tokenizer.module.codebook_size
    codes = np.broadcast_to(np.arange(N, dtype=np.int32)[None, None, :, None], (1, 1, N, K))
    entries = apply_method(tokenizer.module, tokenizer.params, codes, method="codes_to_entries")
    return np.stack([_colours(np.asarray(entries[0, 0, :, k], np.float64)) for k in range(K)])


def code_map(
    codes: Int[np.ndarray, "h w"], colours: UInt8[np.ndarray, "N 3"], *, enlarged: int
) -> UInt8[np.ndarray, "H W 3"]:
    """Draws each code of a sub-codebook as a square of its entry's colour, `enlarged` pixels wide."""
    return colours[codes].repeat(enlarged, axis=0).repeat(enlarged, axis=1)


def _colours(entries: np.ndarray) -> UInt8[np.ndarray, "N 3"]:
    from scipy.stats import rankdata
    from sklearn.decomposition import PCA

    N, d = entries.shape
    components = min(3, N, d)
    positions = PCA(components, svd_solver="full" if d > N else "covariance_eigh").fit_transform(entries)
    ranks = (rankdata(positions, method="average", axis=0) - 0.5) / N
    colours = np.full((N, 3), 128, np.uint8)
    colours[:, :components] = ranks * 255
    return colours
