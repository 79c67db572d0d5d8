"""One process at a time writes a folder in object storage; a killed one is not in the way."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fqgan_jax.errors import UserError
from fqgan_jax.storage import as_path, lease
from fqgan_jax.training.workdir import exclusive

HOLD = """
import sys, time
from fqgan_jax.storage import as_path
from fqgan_jax.training.workdir import exclusive
with exclusive(as_path(sys.argv[1])):
    print('held', flush=True)
    time.sleep(100)
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    module = sys.modules["fqgan_jax.storage.lease"]
    for name, value in {"SECONDS": 4.0, "RENEWAL": 0.3, "SETTLING": 0.3}.items():
        monkeypatch.setattr(module, name, value)


def foreign(path, *, age: float) -> None:
    """The lease of a process on another machine."""
    path.write_text(json.dumps({"owner": "x", "machine": "other", "process": 1, "renewed": time.time() - age}))


def test_the_second_is_refused_and_the_first_goes_on(bucket_folder):
    workdir = as_path(bucket_folder) / "run"
    with exclusive(workdir):
        with pytest.raises(UserError, match=r"Another training runs in .*run: wait for it"), exclusive(workdir):
            pass
        time.sleep(1)
        assert [path.name for path in workdir.files()] == [".lock"]
    assert not workdir.exists()
    with exclusive(workdir):
        pass


@pytest.mark.slow
def test_the_lease_of_a_killed_process_is_not_in_the_way(s3):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, f"{s3}/run"], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait()
    begun = time.monotonic()
    with exclusive(as_path(s3) / "run"):
        assert time.monotonic() - begun < 3  # it ran on this machine


def test_another_machine_has_a_while_to_renew_its_lease(s3):
    path = as_path(s3) / ".lock"
    foreign(path, age=10)
    with lease(path, refusal="no"):  # it has not been renewed
        pass
    foreign(path, age=1)
    begun = time.monotonic()
    with lease(path, refusal="no"):  # nor does it while this one waits
        assert time.monotonic() - begun > 2.5
    foreign(path, age=1)
    renewal = threading.Timer(1, foreign, [path], {"age": 0})
    renewal.start()
    with pytest.raises(UserError, match="no"), lease(path, refusal="no"):
        pass
    renewal.join()
    foreign(path, age=-1000)  # its clock is ahead
    with lease(path, refusal="no"):
        pass


def test_a_process_whose_lease_was_taken_stops(s3):
    path, stopped = as_path(s3) / ".lock", threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        with lease(path, refusal="no"):
            foreign(path, age=0)
            assert stopped.wait(5)
        assert json.loads(path.read_text())["owner"] == "x"  # it is left to its owner
    finally:
        signal.signal(signal.SIGTERM, before)


def test_of_many_at_once_one_holds_it(s3):
    path, held, refused = as_path(s3) / ".lock", [], []

    def attempt():
        try:
            with lease(path, refusal="no"):
                held.append(1)
                time.sleep(1.5)
        except UserError:
            refused.append(1)

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 3)
