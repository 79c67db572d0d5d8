"""Exclusion by a lease: an object that its owner renews, and that others may take when it has not been renewed."""

import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fqgan_jax.errors import UserError
from fqgan_jax.storage.paths import ObjectPath

SECONDS = 60.0  # without renewal, after which a lease is over
RENEWAL = 15.0  # seconds between renewals
SETTLING = 1.0  # seconds after which of two who write at the same time, both see who wrote last

log = logging.getLogger(__name__)


@contextmanager
def lease(path: ObjectPath, *, refusal: str) -> Iterator[None]:
    """Holds a lease while the block runs.

    The lease of a process that was killed is over at once on the same machine, and elsewhere after `SECONDS`, for which
    this waits.

    Raises:
      UserError: `refusal`: another process holds it, and has renewed it while this waited.
    """
    owner = secrets.token_hex(8)
    first = _read(path)
    if first and not _is_over(path, first):
        raise UserError(refusal)
    with contextlib.suppress(FileExistsError):  # perhaps by an attempt of this process whose answer was lost
        _write(path, owner, is_new=not first)
    time.sleep(SETTLING)
    if _read(path).get("owner") != owner:
        raise UserError(refusal)
    released = threading.Event()
    thread = threading.Thread(target=_renew, args=(path, owner, released), daemon=True)
    thread.start()
    try:
        yield
    finally:
        released.set()
        thread.join()
        if _read(path).get("owner") == owner:
            path.unlink(missing_ok=True)


def is_leased(path: ObjectPath) -> bool:
    """Returns whether a process holds a lease, as far as the lease itself tells."""
    content = _read(path)
    return bool(content) and not _owner_is_dead(content) and _age(content) < SECONDS


def _read(path: ObjectPath) -> dict:
    """The content of the lease; empty if nobody holds it."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        return {"owner": "damaged"}
    return content if isinstance(content, dict) else {"owner": "damaged"}


def _write(path: ObjectPath, owner: str, *, is_new: bool = False) -> None:
    machine, process = _machine(), os.getpid()
    content = {"owner": owner, "machine": machine, "process": process, "renewed": time.time()}
    (path.create if is_new else path.write_bytes)(json.dumps(content).encode())


def _is_over(path: ObjectPath, first: dict) -> bool:
    """Whether a lease ends before its owner renews it; waits as long as it may last."""
    if _owner_is_dead(first):
        return True
    end = time.monotonic() + SECONDS - _age(first)
    while time.monotonic() < end:
        time.sleep(min(1.0, max(0.0, end - time.monotonic())))
        found = _read(path)
        if not found:
            return True
        if found != first:
            return False
    return True


def _age(content: dict) -> float:
    """Seconds since the last renewal by the owner's clock, which may be wrong: never less than none."""
    renewed = content.get("renewed", 0)
    return max(0.0, time.time() - renewed) if isinstance(renewed, int | float) else SECONDS


def _owner_is_dead(content: dict) -> bool:
    """Whether the owner ran on this machine, and does not any more."""
    if content.get("machine") != _machine() or not isinstance(content.get("process"), int):
        return False
    try:
        os.kill(content["process"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _machine() -> str:
    """A name of this machine since its start, and of the processes that this one can see."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _renew(path: ObjectPath, owner: str, released: threading.Event) -> None:
    while not released.wait(RENEWAL):
        try:
            found = _read(path).get("owner", owner)
            if found == owner:
                _write(path, owner)
                continue
        except UserError as error:  # it cannot be reached: others cannot either
            log.warning("The lease %s could not be renewed: %s", path, error)
            continue
        log.error("Another process has taken %s, because this one did not renew it in time: it stops.", path)
        os.kill(os.getpid(), signal.SIGTERM)
        return
