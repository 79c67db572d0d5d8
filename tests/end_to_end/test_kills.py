"""`fqgan train` killed at random moments, stopped by SIGTERM, and out of space: run again, it gives the same numbers.

The kills happen in a local work folder and in one in object storage.

FQGAN_KILLS=50 sets how many kills (8 by default).
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from support.attempts import attempt, forkserver
from support.tiny_configs import PLAIN, TINY_TOKENIZER, tiny_generator_config

from fqgan_jax.checkpoints import FOLDER, Item, read_item, saved_steps
from fqgan_jax.checkpoints.mirror import local_checkpoint
from fqgan_jax.config import to_json
from fqgan_jax.storage import ObjectPath, as_path
from fqgan_jax.training.logging import read_log

KILLS = int(os.environ.get("FQGAN_KILLS", "8"))
STEPS = max(24, 2 * KILLS)
FIELDS = ("train.log_every=1", "train.checkpoint_every=2", f"train.evaluate_every={STEPS // 2}", f"train.steps={STEPS}")

pytestmark = pytest.mark.slow


def start(workdir: Path, *, shell: str = 'exec "$@"', **environment: str) -> subprocess.Popen:
    """The command, on one device; its output goes to `workdir.log`."""
    root = Path(__file__).parents[2]
    fields = [f"--config.{field}" for field in (*TINY_TOKENIZER, *PLAIN, *FIELDS)]
    command = [sys.executable, "-m", "fqgan_jax.cli.main", "train", "--config", "configs/demo_tokenizer.py"]
    path = f"{root}{os.pathsep}{os.environ['PYTHONPATH']}"
    variables = {"PYTHONPATH": path, "XLA_FLAGS": "--xla_backend_optimization_level=1"}
    variables = os.environ | variables | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"} | environment
    with workdir.with_suffix(".log").open("a") as output:
        run = ["sh", "-c", shell, "sh", *command, "--workdir", str(workdir), *fields]
        return subprocess.Popen(run, cwd=root, env=variables, stdout=output, stderr=output)


def printed(workdir: Path) -> str:
    return workdir.with_suffix(".log").read_text()


def wait_for(happened: Callable[[], bool], alive: Callable[[], bool], seconds: float = 1200) -> bool:
    """Waits until something has happened; returns False if the process ended first."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "nothing happened in time"
        if not alive():
            return False
        time.sleep(0.002)
    return True


def written_at(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def is_newer(path: Path, than: int) -> bool:
    return written_at(path) > than


def is_longer(path: Path, than: int) -> bool:
    return path.stat().st_size > than


def is_saving(workdir: Path) -> bool:
    """Whether a checkpoint is there that is not whole."""
    if not isinstance(workdir, ObjectPath):
        return bool(list(workdir.glob("checkpoints/*orbax-checkpoint-tmp")))
    there = {int(path.name) for path in (workdir / FOLDER).glob("*")}
    return bool(there - set(saved_steps(workdir / FOLDER)))


def result(workdir: Path) -> tuple:
    """All numbers of the last checkpoint, and the log without its speed."""
    checkpoint = local_checkpoint(workdir / FOLDER / str(STEPS), tuple(Item))
    lines = read_log(workdir)
    for line in lines:
        for name in [name for name in line if name.startswith("images_per_second")]:
            del line[name]
    return jax.device_get({item: read_item(checkpoint / item) for item in ("params", "rest")}), lines


def assert_same(workdir: Path, expected: tuple) -> None:
    (state, lines), (expected_state, expected_lines) = result(workdir), expected
    jax.tree.map(np.testing.assert_array_equal, state, expected_state)
    assert lines == expected_lines


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What one run from start to end gives."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    assert start(workdir).wait() == 0, printed(workdir)
    expected = result(workdir)
    assert [line["step"] for line in expected[1] if "reconstruction" in line] == list(range(1, STEPS + 1))
    return expected


@pytest.mark.parametrize("place", ["disk", pytest.param("s3", marks=pytest.mark.long)])
def test_random_kills_change_nothing(place, code_cache, tmp_path, request):
    """Of a generator, whose processes start fast."""
    root = as_path(request.getfixturevalue("s3")) if place == "s3" else tmp_path
    variables = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "FQGAN_"))}
    config = to_json(tiny_generator_config(*FIELDS, f"data.codes={code_cache}", "train.checkpoint_every=1"))
    context = forkserver()

    def printed_by(workdir):
        return tmp_path / f"{workdir.name}.log"

    def begin(workdir):
        process = context.Process(target=attempt, args=(config, str(workdir), printed_by(workdir), variables))
        process.start()
        return process

    def finish(workdir):
        process = begin(workdir)
        process.join()
        assert process.exitcode == 0, printed_by(workdir).read_text()
        return result(workdir)

    begun = time.monotonic()
    expected = finish(tmp_path / "undisturbed")  # on the disk
    step_seconds = (time.monotonic() - begun) / STEPS  # with its checkpoint
    chance, kills, during_saves, runs = random.Random(0), 0, 0, 0
    while kills < KILLS:
        workdir, runs = root / f"run_{runs}", runs + 1
        log = workdir / "metrics.jsonl"
        while kills < KILLS:
            logged = written_at(log)
            process = begin(workdir)
            if chance.random() < 0.2:  # anywhere: reading the checkpoint, compilation
                time.sleep(chance.uniform(0, 10 * step_seconds))
            else:  # it has opened its log and written a step, and saves
                wait_for(partial(is_newer, log, logged), process.is_alive)
                wait_for(partial(is_longer, log, log.stat().st_size), process.is_alive)
                time.sleep(chance.uniform(0, 3 * step_seconds))
            process.kill()
            process.join()
            if process.exitcode != -signal.SIGKILL:
                assert process.exitcode == 0, printed_by(workdir).read_text()
                break
            kills += 1
            during_saves += is_saving(workdir)
            read_log(workdir)
            print(f"kill {kills} at step {max([line['step'] for line in read_log(workdir)], default=0)}", flush=True)
        (state, lines), (expected_state, expected_lines) = finish(workdir), expected
        jax.tree.map(np.testing.assert_array_equal, state, expected_state)
        assert lines == expected_lines
        assert "damaged" not in printed_by(workdir).read_text()
    print(f"{kills} kills in {runs} run(s), {during_saves} of them during a save")
    assert during_saves > 0


@pytest.mark.parametrize("moment", ["compilation", "save"])
def test_sigterm_saves_exits_with_143_and_the_same_command_continues(undisturbed, tmp_path, moment):
    workdir = tmp_path / "run"
    environment = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")} if moment == "compilation" else {}
    process = start(workdir, **environment)

    def alive():
        return process.poll() is None

    if moment == "compilation":  # the bar appears right before the first step, which is compiled now
        assert wait_for(lambda: "0%|" in printed(workdir), alive)
        time.sleep(1)
        assert not (workdir / "metrics.jsonl").read_text()
    else:
        assert wait_for(lambda: list(workdir.glob("checkpoints/[4-9]*orbax-checkpoint-tmp")), alive)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    print(f"{moment}: ended {time.monotonic() - begun:.1f} s after the signal")
    step = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert f"Stopped by signal at step {step}; the same command continues from there." in printed(workdir)
    assert read_log(workdir)[-1]["step"] == step
    assert "Traceback" not in printed(workdir)
    assert start(workdir).wait() == 0, printed(workdir)
    assert_same(workdir, undisturbed)


def test_full_disk_ends_with_a_sentence_and_the_same_command_continues(undisturbed, tmp_path):
    """A file size limit, set by the shell, in the place of a full disk."""
    workdir = tmp_path / "run"
    assert start(workdir, shell='ulimit -f 90 && exec "$@"').wait() == 2, printed(workdir)
    last = printed(workdir).splitlines()[-1]
    assert "The checkpoint of step 2 could not be written to" in last
    assert "File too large. Older checkpoints are intact: free some space" in last
    assert start(workdir).wait() == 0, printed(workdir)
    assert_same(workdir, undisturbed)
