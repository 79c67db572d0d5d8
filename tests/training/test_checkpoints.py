"""Checkpoints: which ones stay, asynchronous saving, damage, a full disk. A tiny state in the place of a model's."""

import logging
import resource
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.saved_states import DAMAGE, largest_file, save, state_of

from fqgan_jax.checkpoints import load_inference_params, load_params_and_average
from fqgan_jax.errors import UserError
from fqgan_jax.training import checkpointing as checkpoints_lib
from fqgan_jax.training.checkpointing import Checkpoints
from fqgan_jax.training.state import TrainState


def abstract() -> TrainState:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state_of(0))


def restored_step(workdir: Path) -> int:
    """Step of the restored state, every number of which is checked."""
    checkpoints = Checkpoints(workdir, keep=10)
    state = checkpoints.restore(abstract())
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, state, state_of(int(state.step)))
    return int(state.step)


def folders(workdir: Path) -> set[str]:
    return {path.name for path in (workdir / "checkpoints").iterdir()}


def test_newest_every_nth_and_the_best_stay(tmp_path):
    psnr = {3: 30.0, 5: 20.0, 8: 31.0, 9: 25.0, 11: float("nan")}
    validation = {step: {"psnr": value, "ssim": 0.5} for step, value in psnr.items()}
    options = {"keep": 2, "keep_every": 4, "keep_best": "psnr", "validation": validation}
    save(tmp_path, 1, 2, 3, 4, 5, **options)
    assert folders(tmp_path) == {"3", "4", "5"}  # 3 is the best, 4 a fourth one and among the newest, 5 the newest
    save(tmp_path, 6, 7, **options)
    assert folders(tmp_path) == {"3", "4", "6", "7"}
    save(tmp_path, 8, 9, 10, 11, **options)
    assert folders(tmp_path) == {"4", "8", "10", "11"}


def test_with_a_minus_lower_is_better_and_of_equal_ones_the_newest_stays(tmp_path):
    validation = {step: {"rfid": value} for step, value in {1: 9.0, 2: 4.0, 3: 4.0, 4: 7.0, 5: 8.0}.items()}
    save(tmp_path, 1, 2, 3, 4, 5, keep=1, keep_best="-rfid", validation=validation)
    assert folders(tmp_path) == {"3", "5"}


def test_metric_that_was_not_measured_is_named(tmp_path, caplog):
    save(tmp_path, 1, 2, keep=1, keep_best="pnsr", validation={2: {"psnr": 20.0, "ssim": 0.5}})
    assert folders(tmp_path) == {"2"}
    assert [record.getMessage() for record in caplog.records] == [
        "The checkpoint of step 2 has no pnsr to compare (measured: psnr, ssim): name one of these in "
        "train.keep_best, or give the file that adds the metric with --plugin."
    ]


def test_saving_goes_on_in_the_background_and_is_whole_or_absent(tmp_path, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slow(folder):
        begun.set()
        assert go_on.wait(60)

    monkeypatch.setattr(checkpoints_lib, "write_checksums", slow)
    checkpoints, state = Checkpoints(tmp_path, keep=1), state_of(5)
    expected = jax.device_get(state)
    checkpoints.save(state)
    # The step may take the buffers over at once, as the loop's step does.
    state = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf * 0 - 7, state), donate_argnums=0)(state)
    assert begun.wait(60)
    assert not [name for name in folders(tmp_path) if name.isdigit()]
    with pytest.raises(UserError, match="no checkpoint yet"):
        load_inference_params(tmp_path)
    go_on.set()
    checkpoints.close()
    assert folders(tmp_path) == {"5"}
    params, average = load_params_and_average(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, (params, average), (expected.params, expected.ema))
    assert float(state.params["layer"]["kernel"][0, 0]) == -7


@pytest.fixture(scope="module")
def three_saved(tmp_path_factory):
    """A work folder with checkpoints of the steps 1, 2 and 3."""
    workdir = tmp_path_factory.mktemp("three")
    save(workdir, 1, 2, 3)
    return workdir


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_newest_checkpoint_is_set_aside_and_the_one_before_used(three_saved, tmp_path, kind, caplog):
    shutil.copytree(three_saved, tmp_path, dirs_exist_ok=True)
    DAMAGE[kind](tmp_path / "checkpoints" / "3")
    assert restored_step(tmp_path) == 2
    assert folders(tmp_path) == {"1", "2", "damaged_3"}
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "checkpoint of step 3 is damaged" in record.getMessage()
    assert str(tmp_path / "checkpoints" / "damaged_3") in record.getMessage()
    # The step is saved anew; damaged once more, it does not take the first one's place.
    save(tmp_path, 3)
    DAMAGE["no file"](tmp_path / "checkpoints" / "3")
    assert restored_step(tmp_path) == 2
    assert folders(tmp_path) == {"1", "2", "damaged_3", "damaged_3_2"}


def test_optimizer_state_is_checked_where_it_is_needed(tmp_path):
    save(tmp_path, 1, 2)
    largest_file(tmp_path / "checkpoints" / "2" / "rest").unlink()
    assert restored_step(tmp_path) == 1


def test_many_damaged_ones_and_none_left(tmp_path):
    save(tmp_path, 1, 2, 3, 4)
    for step, kind in ((4, "empty"), (3, "no item"), (2, "one bit")):
        DAMAGE[kind](tmp_path / "checkpoints" / str(step))
    assert restored_step(tmp_path) == 1
    DAMAGE["truncated"](tmp_path / "checkpoints" / "1")
    for _ in range(2):  # the second time none has its name any more
        with pytest.raises(UserError, match=r"Every checkpoint in .* is damaged \(damaged_1, damaged_2, "):
            Checkpoints(tmp_path, keep=1)
    (tmp_path / "checkpoints" / "damaged_4").rename(tmp_path / "elsewhere")
    assert folders(tmp_path) == {"damaged_1", "damaged_2", "damaged_3"}


def test_another_shape_is_no_damage(tmp_path):
    save(tmp_path, 1, 2)
    wider = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((*leaf.shape[:-1], 5), leaf.dtype, sharding=leaf.sharding), abstract()
    )
    checkpoints = Checkpoints(tmp_path, keep=10)
    with pytest.raises(ValueError, match="shape"):
        checkpoints.restore(wider)
    assert folders(tmp_path) == {"1", "2"}
    assert restored_step(tmp_path) == 2


def test_checkpoints_without_checksums_are_read(tmp_path):
    save(tmp_path, 1, 2)
    (tmp_path / "checkpoints" / "2" / "checksums.json").unlink()
    assert restored_step(tmp_path) == 2


def test_what_a_kill_left_half_written_goes(tmp_path):
    save(tmp_path, 1)
    shutil.copytree(tmp_path / "checkpoints" / "1", tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp")
    assert restored_step(tmp_path) == 1
    assert folders(tmp_path) == {"1"}


@pytest.mark.parametrize("full", ["before", "meanwhile"])
def test_full_disk_leaves_older_checkpoints_and_the_run_goes_on_after_it(tmp_path, full, monkeypatch):
    save(tmp_path, 1, 2)
    checkpoints = Checkpoints(tmp_path, keep=1)
    limits, usage = resource.getrlimit(resource.RLIMIT_FSIZE), shutil.disk_usage(tmp_path)
    weights = {"kernel": jax.random.normal(jax.random.key(0), (500, 500))}
    big = TrainState(step=jnp.int32(3), params=weights, opt_state=(), ema=None, skipped=jnp.int32(0))
    if full == "before":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=900_000))
        with pytest.raises(UserError, match=r"step 3 could not be written.* about 1\.0 MB, and 0\.9 MB are free"):
            checkpoints.save(big)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        try:
            checkpoints.save(big)
            with pytest.raises(UserError, match=r"step 3 could not be written.*File too large.*free some space"):
                checkpoints.close()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert folders(tmp_path) - {"3.orbax-checkpoint-tmp"} == {"1", "2"}
    monkeypatch.undo()
    assert restored_step(tmp_path) == 2
    save(tmp_path, 3, 4, keep=1)
    assert folders(tmp_path) == {"4"}


def test_error_of_a_save_in_the_background_is_found_without_waiting(tmp_path, monkeypatch):
    ended = threading.Event()

    def fail(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints_lib, "write_checksums", fail)
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(state_of(1))
    for _ in range(600):
        if not checkpoints._manager.is_saving_in_progress():
            break
        ended.wait(0.1)
    with pytest.raises(UserError, match=r"step 1 could not be written.*No space left"):
        checkpoints.check()
    assert not [name for name in folders(tmp_path) if name.isdigit()]


@pytest.mark.parametrize("options", [{"keep": 0}, {"keep": 1, "keep_every": -5}])
def test_numbers_that_would_keep_nothing_are_refused(tmp_path, options):
    with pytest.raises(UserError, match="1 or more"):
        Checkpoints(tmp_path, **options)
