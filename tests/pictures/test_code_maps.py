"""Colours of codes: like entries have like colours."""

import dataclasses

import jax
import numpy as np
from support.tiny_models import tiny_tokenizer

from fqgan_jax.pictures.code_maps import code_map, entry_colours


def test_entries_on_a_line_have_colours_in_its_order():
    tokenizer = tiny_tokenizer(2)
    N, d = tokenizer.module.codebook_size, tokenizer.module.code_dim
    # Entries of an arc, in a shuffled order: their first principal component orders them.
    order = np.random.default_rng(0).permutation(N)
    angles = np.linspace(0, 1, N)[order]
    arc = np.zeros((N, d), np.float32)
    arc[:, 0], arc[:, 1] = np.cos(angles), np.sin(angles)
    params = jax.tree.map(lambda leaf: leaf, tokenizer.params)
    params["quantizer"]["codebooks"] = np.stack([arc, arc[::-1]])
    colours = entry_colours(dataclasses.replace(tokenizer, params=params))
    assert colours.shape == (2, N, 3)
    assert colours.dtype == np.uint8
    along = colours[0, np.argsort(order), 0].astype(int)
    assert len(np.unique(along)) == N
    assert (np.diff(along) > 0).all() or (np.diff(along) < 0).all()
    # Colours go with the entries, not with their numbers.
    assert (colours[1] == colours[0, ::-1]).all() or (255 - colours[1][..., 0] == colours[0, ::-1][..., 0]).all()


def test_a_map_has_a_square_for_each_code():
    colours = np.arange(12, dtype=np.uint8).reshape(4, 3)
    shown = code_map(np.array([[0, 3]]), colours, enlarged=2)
    assert shown.tolist() == [[[0, 1, 2]] * 2 + [[9, 10, 11]] * 2] * 2
