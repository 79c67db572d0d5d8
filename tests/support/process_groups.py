"""Commands that run as several processes on this machine, each with four virtual devices."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from support.environment import PROCESS_FLAGS

WHO = ("--coordinator", "{address}", "--num-processes", "{count}", "--process-id", "{index}")


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


def launch(count: int, command: list[str], logs: Path) -> list[subprocess.Popen]:
    """Starts `count` processes of a command; "{address}", "{count}" and "{index}" in it are filled in."""
    environment = os.environ | {"XLA_FLAGS": PROCESS_FLAGS, "JAX_PLATFORMS": "cpu"}
    values, started = {"address": f"localhost:{free_port()}", "count": count}, []
    for index in range(count):
        filled = [part.format(**values, index=index) for part in command]
        with (logs / f"process_{count}_{index}.log").open("w") as log:
            started.append(subprocess.Popen([sys.executable, *filled], stdout=log, stderr=log, env=environment))
    return started


def wait(started: list[subprocess.Popen], logs: Path, timeout: float = 3600) -> list[tuple[int, str]]:
    """Exit status and output of each; none is left running."""
    deadline = time.monotonic() + timeout
    try:
        codes = [process.wait(max(deadline - time.monotonic(), 0.1)) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(code, (logs / f"process_{len(started)}_{index}.log").read_text()) for index, code in enumerate(codes)]
