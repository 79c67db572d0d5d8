"""Loaded models do what the modules do, from work folders and from export folders."""

import jax
import numpy as np
import pytest

import fqgan_jax
from fqgan_jax.errors import UserError


def test_export_folder_gives_the_same_tokenizer(trained_tokenizer, tmp_path):
    tokenizer = fqgan_jax.load_tokenizer(trained_tokenizer)
    tokenizer.save(tmp_path / "export")
    exported = fqgan_jax.load_tokenizer(tmp_path / "export")
    assert exported.fingerprint == tokenizer.fingerprint
    assert exported.module == tokenizer.module
    images = np.random.default_rng(0).integers(0, 255, (2, 16, 24, 3), np.uint8)
    codes = tokenizer.encode(images)
    assert codes.shape == (2, 8, 12, 2)
    assert codes.dtype == np.int32
    np.testing.assert_array_equal(codes, exported.encode(images.astype(np.float32) / 127.5 - 1))
    assert tokenizer.latents(images).shape == (2, 8, 12, 2, 8)
    decoded = tokenizer.decode(codes)
    assert decoded.shape == (2, 16, 24, 3)
    assert np.abs(decoded).max() <= 1


def test_export_folder_gives_the_same_generator(trained_generator, tmp_path):
    generator = fqgan_jax.load_generator(trained_generator)
    generator.save(tmp_path / "export")
    exported = fqgan_jax.load_generator(tmp_path / "export")
    assert exported.class_names == ("blue", "red")
    assert exported.tokenizer == generator.tokenizer
    codes = generator.sample([0, 1], key=jax.random.key(0))
    assert codes.shape == (2, 8, 8, 2)
    np.testing.assert_array_equal(codes, exported.sample([0, 1], key=jax.random.key(0)))
    logits = generator.logits(codes, np.array([0, 1]))
    assert logits.shape == (2, 64, 2, 32)
    assert logits.dtype == np.float32


def test_wrong_folders_are_explained(trained_tokenizer, tmp_path):
    with pytest.raises(UserError, match="There is no checkpoint"):
        fqgan_jax.load_tokenizer(tmp_path / "nothing")
    with pytest.raises(UserError, match="holds no model"):
        fqgan_jax.load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="holds a tokenizer, but a generator"):
        fqgan_jax.load_generator(trained_tokenizer)


def test_images_of_a_wrong_shape_are_explained(trained_tokenizer):
    with pytest.raises(UserError, match="divisible by 2"):
        fqgan_jax.load_tokenizer(trained_tokenizer).encode(np.zeros((1, 16, 17, 3), np.uint8))
