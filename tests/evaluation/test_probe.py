"""The linear probe on entries whose class is known, and on a tokenizer."""

import json

import numpy as np
import pytest
from support.rows import replace_package

from fqgan_jax.api import load_tokenizer
from fqgan_jax.cli.main import main
from fqgan_jax.errors import UserError
from fqgan_jax.evaluation.image_set import open_images
from fqgan_jax.evaluation.probe import PooledCodes, pooled_codes, probe_accuracies


def draw(seed: int, count: int = 200, classes: int = 4) -> PooledCodes:
    """The second of two sub-codebooks tells the class, the first nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    entries = rng.normal(size=(count, 2, 8))
    entries[:, 1] += 5 * np.eye(8)[labels]
    return PooledCodes(entries=entries, labels=labels)


def test_the_sub_codebook_that_tells_the_class_is_found():
    found = probe_accuracies(draw(0), draw(1))
    assert found.keys() == {"probe/0", "probe/1", "probe/all"}
    assert found["probe/0"] < 0.45  # chance is a quarter
    assert found["probe/1"] > 0.95
    assert found["probe/all"] > 0.95


def test_one_class_is_no_probe():
    with pytest.raises(UserError, match="at least two classes"):
        probe_accuracies(draw(0, classes=1), draw(1))


def test_pooled_codes_are_the_means_of_the_entries(trained_tokenizer, image_folder):
    tokenizer, images = load_tokenizer(trained_tokenizer), open_images(str(image_folder), size=16)
    pooled = pooled_codes(tokenizer, images, batch_size=7)
    batch = next(images.batches(24))
    codebooks = np.asarray(tokenizer.params["quantizer"]["codebooks"])
    codebooks = codebooks / np.linalg.norm(codebooks, axis=-1, keepdims=True)
    codes = np.asarray(tokenizer.encode(batch["image"]))
    expected = np.stack([codebooks[k][codes[..., k]].mean((1, 2)) for k in range(2)], axis=1)
    np.testing.assert_allclose(pooled.entries, expected, atol=1e-5)
    np.testing.assert_array_equal(pooled.labels, batch["label"])


def test_the_command_prints_and_writes_it(trained_tokenizer, image_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FQGAN_CACHE", str(tmp_path / "cache"))
    replace_package(monkeypatch)
    command = ["evaluate", "--checkpoint", str(trained_tokenizer), "--data", str(image_folder), "--probe"]
    assert main([*command, "--out", str(tmp_path / "out.json")]) == 0
    content = json.loads((tmp_path / "out.json").read_text())
    assert {"probe/0", "probe/1", "probe/all"} <= content["results"].keys()
    assert content["protocol"]["probe"]["train"]["split"] == "train"
    assert content["protocol"]["probe"]["validation"]["split"] == "validation"
    assert "probe/all" in capsys.readouterr().out
