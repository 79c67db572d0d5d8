"""Loaded models compute what the modules compute, from work folders, export folders and files."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from support.tiny_models import tiny_generator, tiny_tokenizer

import fqgan_jax
from fqgan_jax.api import Model, Tokenizer, wrappers
from fqgan_jax.checkpoints import write_export
from fqgan_jax.errors import UserError
from fqgan_jax.models.fields import model_kinds
from fqgan_jax.models.fqgan import FQGAN


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


@pytest.mark.parametrize("model", [tiny_tokenizer(2), tiny_generator(2)], ids=lambda model: model.kind)
def test_load_model_finds_the_kind(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = fqgan_jax.load_model(tmp_path / "model", grid=(2, 8))
    assert type(loaded) is type(model)
    assert loaded.description == dataclasses.replace(
        model.description, fields=model.description.fields | {"grid": (2, 8)}
    )
    with pytest.raises(UserError, match=f"A {model.kind} is not loaded with 'depth'"):
        fqgan_jax.load_model(tmp_path / "model", depth=3)


def test_a_grid_for_which_the_positions_are_too_many_is_refused(tmp_path):
    tiny_tokenizer(2).save(tmp_path / "model")
    with pytest.raises(UserError, match=r"positions \(2, 16, 16\), not \(2, 8, 16\)"):
        fqgan_jax.load_model(tmp_path / "model", grid=(2, 4))


def test_a_file_of_another_model_is_refused(tmp_path):
    save_file({"classifier.weight": np.zeros((2, 3), np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"holds no known kind of model \(tokenizer, generator\).*classifier\.weight"):
        fqgan_jax.load_model(tmp_path / "model.safetensors")
    metadata = {"fqgan_jax": json.dumps({"kind": "captioner", "fields": {}})}
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "captioner.safetensors", metadata)
    with pytest.raises(UserError, match=r"captioner\.safetensors is 'captioner'.*--plugin"):
        fqgan_jax.load_model(tmp_path / "captioner.safetensors")


def test_a_kind_of_a_plugin_is_a_row(tmp_path, monkeypatch):
    class CaptionModule(FQGAN):
        pass

    class Captioner(Tokenizer):
        pass

    model = tiny_tokenizer(1)
    description = dataclasses.replace(model.description, kind="captioner")
    write_export(tmp_path / "model", description, model.params)
    with pytest.raises(UserError, match=r"model is .captioner'.*--plugin"):
        fqgan_jax.load_model(tmp_path / "model")
    monkeypatch.setattr(wrappers, "_rows", dict(wrappers))
    monkeypatch.setattr(model_kinds, "_rows", dict(model_kinds))
    model_kinds("captioner")(CaptionModule)
    loaded = fqgan_jax.load_model(tmp_path / "model")
    assert type(loaded) is Model
    assert loaded.description == description
    with pytest.raises(UserError, match="A captioner is not loaded with 'grid': only nothing can be given"):
        fqgan_jax.load_model(tmp_path / "model", grid=(2, 2))
    wrappers("captioner")(Captioner)
    loaded = fqgan_jax.load_model(tmp_path / "model", grid=[2, 2])
    assert type(loaded) is Captioner
    assert loaded.kind == "captioner"


def test_public_names_are_loaded_on_first_use():
    code = "import sys, fqgan_jax; assert 'jax' not in sys.modules; fqgan_jax.nothing"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "module 'fqgan_jax' has no attribute 'nothing'" in run.stderr
    assert all(hasattr(fqgan_jax, name) for name in fqgan_jax.__all__)
