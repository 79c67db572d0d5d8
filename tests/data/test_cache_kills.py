"""Caches of codes and of features survive kills."""

import multiprocessing
import random
import signal
import time

import cache_runs
import dino_files
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Seventy small images, one of them damaged."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for i in range(70):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / f"{i:02d}.png")
    (folder / "17.png").write_bytes(b"damaged")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["codes", "features"])
def test_twenty_kills_leave_no_trace(kind, images, tmp_path, monkeypatch):
    """Killed at random moments of its work, then run again: byte for byte what an undisturbed run writes."""
    monkeypatch.setenv("FQGAN_CACHE", str(tmp_path / "weights"))
    dino_files.fetch_small_teacher(tmp_path / "published")
    # Processes that have everything imported already.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["cache_runs"])

    def start(folder):
        process = processes.Process(target=cache_runs.write, args=(kind, images, folder, tmp_path / "weights"))
        process.start()
        return process

    def finish(folder):
        process = start(folder)
        process.join()
        return process.exitcode, {path.name: path.read_bytes() for path in folder.iterdir()}

    code, expected = finish(tmp_path / "undisturbed")
    assert code == 0
    assert len(expected) == 18 + 1
    assert not [name for name in expected if name.startswith(".")]

    kills, folders, moments = 0, 0, random.Random(0)
    while kills < 20:
        folder, folders = tmp_path / f"run_{folders}", folders + 1
        while kills < 20 and not (folder / f"{kind}.json").exists():
            process = start(folder)
            shards = len(list(folder.glob("*.array_record")))
            while process.is_alive() and not writes(folder, shards):
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.15))
            process.kill()
            process.join()
            kills += process.exitcode == -signal.SIGKILL
        code, found = finish(folder)
        assert code in (0, 2)  # 2: it was complete when it was killed
        assert found == expected


def writes(folder, shards: int) -> bool:
    """Whether a run has begun a shard after so many."""
    return bool(list(folder.glob(".*.array_record.partial"))) or len(list(folder.glob("*.array_record"))) > shards
