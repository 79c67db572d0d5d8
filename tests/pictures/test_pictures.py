"""Pictures of a tokenizer: what they are computed from."""

import jax.numpy as jnp
import numpy as np
from PIL import Image

from fqgan_jax.api import load_tokenizer
from fqgan_jax.pictures import tokenizer_pictures
from fqgan_jax.pictures.curves import save_overlaid_curves
from fqgan_jax.pictures.maps import code_histograms, save_entry_maps, save_image_map, tsne


def test_parts_of_a_reconstruction(trained_tokenizer):
    tokenizer = load_tokenizer(trained_tokenizer)
    images = np.random.default_rng(0).uniform(-1, 1, (3, 16, 16, 3)).astype(np.float32)
    codes = tokenizer.encode(images)

    def decode(kept):
        decoded = tokenizer_pictures.decode_parts(tokenizer.module, tokenizer.params, codes, kept=jnp.array(kept))
        return np.asarray(decoded)

    np.testing.assert_allclose(decode([True, True]), tokenizer.decode(codes), atol=1e-5)
    # Nothing kept: every image is the same. One kept: they differ.
    nothing = decode([False, False])
    np.testing.assert_allclose(nothing[0], nothing[1], atol=1e-5)
    first = decode([True, False])
    assert np.abs(first[0] - first[1]).max() > 1e-3


def test_rows_of_originals_reconstructions_and_errors(trained_tokenizer, tmp_path, monkeypatch):
    saved = {}

    def save(rows, path):
        saved.update(rows)

    monkeypatch.setattr(tokenizer_pictures, "save_labelled_rows", save)
    tokenizer = load_tokenizer(trained_tokenizer)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    tokenizer_pictures.save_reconstructions(tokenizer, images, tmp_path / "x.png")
    difference = np.abs(saved["reconstruction"] - images).mean(-1)
    # Black, -1, where nothing differs; white, 1, from the largest error on.
    np.testing.assert_allclose(saved["error"][..., 1], np.minimum(difference / 0.5, 1) * 2 - 1, atol=1e-6)


def test_overlaid_curves_of_runs_that_logged_different_things(tmp_path):
    first = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"step": 2, "validation/psnr": 20.0}]
    save_overlaid_curves({"a": first, "b": [{"step": 5, "loss": 3.0}]}, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 1.5 * picture.height  # two panels side by side


def test_code_histograms_count_codes_per_sub_codebook():
    codes = np.random.default_rng(0).integers(0, 5, (4, 2, 3, 2))
    found = code_histograms(codes).toarray()
    expected = np.array([[np.sum(image[..., k] == c) for c in range(5) for k in range(2)] for image in codes])
    np.testing.assert_array_equal(found, expected[:, expected.any(0)])


def test_maps_keep_neighbours(tmp_path):
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.eye(3) * 10, 20, axis=0) + rng.normal(0, 0.1, (60, 3))
    positions = tsne(clusters.astype(np.float32)).reshape(3, 20, 2)
    centres = positions.mean(1)
    within = max(np.abs(group - centre).max() for group, centre in zip(positions, centres, strict=True))
    apart = min(np.linalg.norm(centres[i] - centres[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert apart > 2 * within

    codes = rng.integers(0, 4, (9, 2, 2, 2))
    assert save_entry_maps(rng.normal(size=(2, 4, 8)), codes, tmp_path / "entries.png")
    assert save_image_map(codes, np.arange(9) % 3, class_names=("a", "b", "c"), path=tmp_path / "images.png")
    for name in ("entries.png", "images.png"):
        with Image.open(tmp_path / name) as picture:
            assert np.asarray(picture.convert("RGB")).std() > 5  # something is drawn
    assert not save_entry_maps(rng.normal(size=(1, 2, 8)), codes[..., :1] % 2, tmp_path / "nothing.png")
