"""Which checkpoint is read, and what is done about damaged ones; a tiny state stands for a model's."""

import shutil
from pathlib import Path

import jax
import ml_collections
import numpy as np
import pytest
from support.saved_states import DAMAGE, largest_file, save, state_of

from fqgan_jax.checkpoints import (
    Item,
    has_item,
    load_discriminator_params,
    load_inference_params,
    load_params_and_average,
    score_function,
)
from fqgan_jax.config import to_json
from fqgan_jax.errors import UserError

PSNR = {1: 20.0, 2: 30.0, 3: 25.0}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A work folder with checkpoints of the steps 1 to 4; the last one was not measured."""
    workdir = tmp_path_factory.mktemp("run")
    save(workdir, 1, 2, 3, 4, keep_best="psnr", validation={step: {"psnr": value} for step, value in PSNR.items()})
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    """A copy of it."""
    return shutil.copytree(saved, tmp_path / "run")


def assert_equal(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def write_config(workdir: Path, **train) -> None:
    (workdir / "config.json").write_text(to_json(ml_collections.ConfigDict({"train": train})))


def test_newest_best_and_any_other(workdir):
    write_config(workdir, keep_best="psnr")
    for name, step in (("", 4), ("@best", 2), ("@3", 3)):
        params, loaded = load_inference_params(Path(f"{workdir}{name}"))
        assert loaded == step
        assert_equal(params, state_of(step).ema)
    assert has_item(Path(f"{workdir}@best"), Item.EMA)
    params, average = load_params_and_average(Path(f"{workdir}@1"))
    assert_equal((params, average), (state_of(1).params, state_of(1).ema))
    write_config(workdir, keep_best="-psnr")
    assert load_inference_params(Path(f"{workdir}@best"))[1] == 1


def test_checkpoints_that_are_not_there(workdir, tmp_path):
    with pytest.raises(UserError, match="no checkpoint 7, but 4, 3, 2, 1"):
        load_inference_params(Path(f"{workdir}@7"))
    write_config(workdir, keep_best="")
    with pytest.raises(UserError, match=r"without train\.keep_best"):
        load_inference_params(Path(f"{workdir}@best"))
    write_config(workdir, keep_best="-rfid")
    with pytest.raises(UserError, match=r"was measured by 'rfid' \(train\.keep_best\)"):
        load_inference_params(Path(f"{workdir}@best"))
    with pytest.raises(UserError, match="trains no discriminator"):
        load_discriminator_params(workdir)
    with pytest.raises(UserError, match="has no checkpoint yet"):
        load_inference_params(tmp_path / "empty")


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_newest_checkpoint_is_skipped(workdir, kind, caplog):
    DAMAGE[kind](workdir / "checkpoints" / "4")
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    params, step = load_inference_params(workdir)
    assert step == 3
    assert_equal(params, state_of(3).ema)
    # Reading changes nothing in the folder, but tells.
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before
    assert "checkpoints/4 is damaged" in caplog.text
    with pytest.raises(UserError, match="run@4 has no checkpoint that is not damaged"):
        load_inference_params(Path(f"{workdir}@4"))


def test_a_damaged_best_checkpoint_is_skipped(workdir):
    write_config(workdir, keep_best="psnr")
    DAMAGE["no file"](workdir / "checkpoints" / "2")
    assert load_inference_params(Path(f"{workdir}@best"))[1] == 3
    largest_file(workdir / "checkpoints" / "3" / "metrics").write_text("{}")
    assert load_inference_params(Path(f"{workdir}@best"))[1] == 1


def test_the_state_of_the_optimizer_is_not_needed(workdir):
    largest_file(workdir / "checkpoints" / "4" / "rest").unlink()
    assert load_inference_params(workdir)[1] == 4


def test_checkpoints_without_checksums(workdir):
    for step in (3, 4):
        (workdir / "checkpoints" / str(step) / "checksums.json").unlink()
    assert load_inference_params(workdir)[1] == 4
    (workdir / "checkpoints" / "4" / "params" / "_METADATA").unlink()
    assert load_inference_params(workdir)[1] == 3


def test_only_damaged_ones_are_left(workdir):
    for step, kind in ((4, "empty"), (3, "no item"), (2, "one bit"), (1, "truncated")):
        DAMAGE[kind](workdir / "checkpoints" / str(step))
    with pytest.raises(UserError, match="no checkpoint that is not damaged"):
        load_inference_params(workdir)


def test_scores():
    assert score_function("psnr")({"psnr": 3.0, "ssim": 9.0}) == 3
    assert score_function("-rfid")({"rfid": 3.0}) == -3
    for metrics in ({}, {"psnr": float("nan")}, {"psnr": float("inf")}):
        assert score_function("psnr")(metrics) == score_function("-psnr")(metrics) == -np.inf
