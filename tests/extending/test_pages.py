"""The pages of docs/extending.md as they stand there, in files outside the package."""

import json
import re

import jax
import numpy as np
import pytest
from support.plugins import PAGES, page, restored_tables
from support.tiny_configs import PLAIN, TINY_TOKENIZER, tiny_tokenizer_config

import fqgan_jax
from fqgan_jax.cli.main import main
from fqgan_jax.config import load_config
from fqgan_jax.config.plugins import load_plugin
from fqgan_jax.data.sources import open_source
from fqgan_jax.errors import UserError
from fqgan_jax.training import train
from fqgan_jax.training.logging import read_log

pytestmark = pytest.mark.slow

TWO_STEPS = (
    *("train.steps=2", "train.log_every=1", "train.checkpoint_every=1"),
    *("train.evaluate_every=100", "train.evaluate_count=8"),
)


@pytest.fixture
def plugin(tmp_path):
    """Writes a page to a file and adds its rows, for one test."""

    def add(name: str):
        file = tmp_path / name
        file.write_text(page(name))
        load_plugin(file)
        return file

    with restored_tables():
        yield add


def train_and_resume(workdir, *fields: str):
    """Two steps in one go, and in two; returns the log of the second run, whose state must be that of the first."""
    config = tiny_tokenizer_config(*TWO_STEPS, *fields)
    whole = train(config, workdir / "whole")
    train(config, workdir / "resumed", stop_after=1)
    resumed = train(config, workdir / "resumed")
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    log = read_log(workdir / "resumed")
    assert [line["skipped"] for line in log if "skipped" in line] == [0, 0]
    return log


def save_and_load(workdir, folder):
    """The tokenizer of a run, after a round trip through an export folder."""
    tokenizer = fqgan_jax.load_tokenizer(workdir / "resumed")
    tokenizer.save(folder)
    loaded = fqgan_jax.load_tokenizer(folder)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    codes = tokenizer.encode(images)
    np.testing.assert_array_equal(loaded.encode(images), codes)
    np.testing.assert_array_equal(loaded.decode(codes), tokenizer.decode(codes))
    assert loaded.fingerprint == tokenizer.fingerprint
    return loaded


def evaluated(workdir, *arguments: str) -> dict:
    """Results of `fqgan evaluate` on a few of the bundled photographs."""
    out = workdir / "evaluation.json"
    command = ["evaluate", "--checkpoint", str(workdir / "resumed"), "--data", "photos", "--count", "8"]
    assert main([*command, "--out", str(out), *arguments]) == 0
    return json.loads(out.read_text())["results"]


def test_every_page_is_tested():
    files = set(re.findall(r"^# (my_\w+\.py)$", PAGES.read_text(), re.MULTILINE))
    kinds = ("loss", "quantizer", "head", "teacher", "source", "metric", "task")
    assert files == {f"my_{kind}.py" for kind in kinds}


def test_loss(plugin, tmp_path):
    plugin("my_loss.py")
    log = train_and_resume(tmp_path, *PLAIN, "loss.total_variation=0.5")
    train(tiny_tokenizer_config(*TWO_STEPS, *PLAIN), tmp_path / "without")
    without = read_log(tmp_path / "without")
    assert 0 < log[0]["total_variation"] < 2
    difference = log[0]["loss"] - without[0]["loss"]
    assert difference == pytest.approx(0.5 * log[0]["total_variation"], rel=1e-4)
    assert log[1]["reconstruction"] != without[1]["reconstruction"]  # the gradient has arrived
    save_and_load(tmp_path, tmp_path / "export")
    assert "psnr" in evaluated(tmp_path)


ROUNDING = ("model.quantizer=rounding", "model.code_dim=4", "model.codebook_size=81", "model.z_channels=8")


def test_quantizer(plugin, tmp_path):
    file = plugin("my_quantizer.py")
    log = train_and_resume(tmp_path, *PLAIN, *ROUNDING)
    assert {"codebook/0", "commitment/1", "usage/0", "perplexity/1"} <= log[0].keys()
    assert "entropy/0" not in log[0]
    tokenizer = save_and_load(tmp_path, tmp_path / "export")
    codes = np.arange(81).reshape(1, 9, 9, 1).repeat(2, axis=-1)
    entries = tokenizer.module.apply({"params": tokenizer.params}, codes, method="codes_to_entries")
    assert len(np.unique(np.asarray(entries[..., 0, :]).reshape(81, 4), axis=0)) == 81
    results = evaluated(tmp_path, "--plugin", str(file), "--report", str(tmp_path / "report"))
    assert 0 < results["usage/0"] <= 1


def test_a_model_of_a_quantizer_that_is_not_there_is_refused(plugin, tmp_path):
    with restored_tables():
        plugin("my_quantizer.py")
        train(tiny_tokenizer_config(*TWO_STEPS, *PLAIN, *ROUNDING), tmp_path / "run", stop_after=1)
    with pytest.raises(UserError, match=r"no quantizer 'rounding'.*--plugin FILE"):
        fqgan_jax.load_tokenizer(tmp_path / "run")


def test_head(plugin, tmp_path):
    file = plugin("my_head.py")
    train_and_resume(tmp_path, *PLAIN, "model.factorization=linear")
    tokenizer = save_and_load(tmp_path, tmp_path / "export")
    assert tokenizer.params["heads"].keys() == {"shared", "to_latents"}
    assert "psnr" in evaluated(tmp_path, "--plugin", str(file))
    with pytest.raises(UserError, match=r"model.code_dim=64 is larger than model.z_channels"):
        train(tiny_tokenizer_config("model.factorization=linear", "model.code_dim=64"), tmp_path / "large")


def test_teacher(plugin, tmp_path):
    plugin("my_teacher.py")
    log = train_and_resume(tmp_path, "teachers=('patches','colours')", "frozen_dtype=float32")
    # Predictions of a fresh head do not know one image from another: about the logarithm of the batch size.
    assert [log[0][f"feature/{k}"] for k in (0, 1)] == pytest.approx([np.log(8)] * 2, abs=0.5)
    tokenizer = save_and_load(tmp_path, tmp_path / "export")
    assert tokenizer.module.feature_widths == (32, 48)
    assert "psnr" in evaluated(tmp_path)


def test_source(plugin, tmp_path, capsys):
    file = plugin("my_source.py")
    train_and_resume(tmp_path, *PLAIN, "data.source=squares:64")
    save_and_load(tmp_path, tmp_path / "export")
    assert len(open_source("squares:64", "validation")) == 64
    command = ["data", "--plugin", str(file), "squares:12", "--out", str(tmp_path / "batch.png"), "--image-size", "16"]
    assert main(command) == 0
    assert "12 of 12" in capsys.readouterr().out


def test_metric(plugin, tmp_path):
    file = plugin("my_metric.py")
    log = train_and_resume(tmp_path, *PLAIN, "train.evaluate_every=2", "train.keep_best=-l1")
    validation = next(line for line in log if "validation/l1" in line)
    assert 0 < validation["validation/l1"] < 2
    save_and_load(tmp_path, tmp_path / "export")
    tokenizer = fqgan_jax.load_tokenizer(tmp_path / "resumed")
    assert fqgan_jax.load_tokenizer(f"{tmp_path / 'resumed'}@best").fingerprint == tokenizer.fingerprint
    assert evaluated(tmp_path, "--plugin", str(file))["l1"] > 0


def test_a_weight_that_only_the_plugin_knows_is_a_flag(plugin):
    plugin("my_loss.py")
    fields = [f"--config.{field}" for field in (*TINY_TOKENIZER, "loss.total_variation=0.25")]
    assert load_config("configs/demo_tokenizer.py", fields).loss.total_variation == 0.25
    with pytest.raises(UserError, match=r"did you mean 'loss.total_variation'"):
        load_config("configs/demo_tokenizer.py", ["--config.loss.total_varation=0.25"])
