"""One attempt at a training run, in a process of its own that is cheap to start: its parent has imported everything."""

import multiprocessing
import os
import sys
from collections.abc import Mapping
from pathlib import Path


def forkserver():
    """Starts processes from one that has imported the loop, and so has spent most of a start's seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fqgan_jax.training.loop", "orbax.checkpoint", "tensorboardX"])
    return context


def attempt(config: str, workdir: str, printed: Path, environment: Mapping[str, str]) -> None:
    """Trains on one device, continuing where the work folder stands; what is printed goes to a file."""
    output = os.open(printed, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.environ |= environment
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output, stream.fileno())
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=1"  # read when the first device is asked for
    import jax

    from fqgan_jax.config import from_json
    from fqgan_jax.storage import as_path
    from fqgan_jax.training.loop import train

    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    train(from_json(config), as_path(workdir))
