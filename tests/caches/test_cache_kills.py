"""Caches of codes and of features survive kills, and several hosts write them together."""

import multiprocessing
import os
import random
import signal
import socket
import time

import numpy as np
import pytest
from PIL import Image
from support import cache_runs, dino_files

from fqgan_jax.storage import as_path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Seventy small images, one of them damaged."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for i in range(70):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / f"{i:02d}.png")
    (folder / "17.png").write_bytes(b"damaged")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A cache with the small teacher."""
    folder = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FQGAN_CACHE", str(folder / "cache"))
        dino_files.fetch_small_teacher(folder / "published")
    return folder / "cache"


def start(target, *arguments):
    """A process that has everything imported already."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["support.cache_runs"])
    process = processes.Process(target=target, args=arguments)
    process.start()
    return process


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["codes", "features"])
def test_twenty_kills_leave_no_trace(kind, images, weights, tmp_path):
    """Killed at random moments of its work, then run again: byte for byte what an undisturbed run writes."""

    def run(folder):
        return start(cache_runs.write, kind, images, folder, weights)

    def finish(folder):
        process = run(folder)
        process.join()
        return process.exitcode, contents(folder)

    code, expected = finish(tmp_path / "undisturbed")
    assert code == 0
    assert len(expected) == 18 + 1
    assert not [name for name in expected if name.startswith(".")]

    kills, folders, moments = 0, 0, random.Random(0)
    while kills < 20:
        folder, folders = tmp_path / f"run_{folders}", folders + 1
        while kills < 20 and not (folder / f"{kind}.json").exists():
            process = run(folder)
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


@pytest.mark.long
@pytest.mark.slow
def test_kills_while_codes_go_to_a_bucket(images, weights, tmp_path, s3):
    folder, moments, kills = as_path(s3) / "codes", random.Random(0), 0
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}

    def run():
        return start(cache_runs.write_to_bucket, environment, "codes", images, folder, weights)

    undisturbed = start(cache_runs.write, "codes", images, tmp_path / "undisturbed", weights)
    undisturbed.join()
    for _ in range(5):
        process, before = run(), len(list(as_path(s3).glob("codes/*")))
        while process.is_alive() and len(list(as_path(s3).glob("codes/*"))) < before + 2:  # the lease, and a shard
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    assert kills >= 2
    process = run()
    process.join()
    assert process.exitcode in (0, 2)  # 2: it was complete when it was killed
    assert contents(folder) == contents(tmp_path / "undisturbed")


def writes(folder, shards: int) -> bool:
    """Whether a run has begun a shard after so many."""
    return bool(list(folder.glob(".*.array_record.partial"))) or len(list(folder.glob("*.array_record"))) > shards


@pytest.mark.slow
def test_two_hosts_write_what_one_writes(images, weights, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    arguments = ("features", images, tmp_path / "two", weights)
    hosts = [start(cache_runs.write_as_host, process, 2, port, *arguments) for process in range(2)]
    hosts.append(start(cache_runs.write, "features", images, tmp_path / "one", weights))
    for host in hosts:
        host.join(120)
        assert host.exitcode == 0
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
