"""Checkpoints of a tiny training state whose every number tells its step, and ways to damage them."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp

from fqgan_jax.training.checkpointing import Checkpoints
from fqgan_jax.training.state import TrainState


def state_of(step: int, size: int = 64) -> TrainState:
    """Every number of it tells the step."""
    weights = {"layer": {"kernel": jnp.full((size, 3), step + 0.5), "bias": jnp.arange(3.0) * step}}
    return TrainState(
        step=jnp.int32(step),
        params=weights,
        opt_state=(jnp.full((size, 3), -1.0 * step), jnp.int32(step)),
        ema=jax.tree.map(lambda leaf: leaf / 2, weights),
        skipped=jnp.int32(0),
    )


def save(
    workdir: Path, *steps: int, keep: int = 10, validation: Mapping[int, dict[str, float]] | None = None, **options
) -> None:
    """Saves checkpoints of these steps, with the metrics of those that `validation` has."""
    checkpoints = Checkpoints(workdir, keep=keep, **options)
    for step in steps:
        checkpoints.save(state_of(step), (validation or {}).get(step))
    checkpoints.close()


def largest_file(folder: Path) -> Path:
    return max(_files(folder), key=lambda path: path.stat().st_size)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _truncate(folder: Path) -> None:
    file = largest_file(folder / "params")
    file.write_bytes(file.read_bytes()[:-9])


def _empty(folder: Path) -> None:
    for path in _files(folder):
        path.write_bytes(b"")


def _zero(folder: Path) -> None:
    file = largest_file(folder / "ema")
    file.write_bytes(bytes(file.stat().st_size))


def _flip_one_bit(folder: Path) -> None:
    file = largest_file(folder / "params" / "ocdbt.process_0" / "d")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _remove_all_files(folder: Path) -> None:
    for path in _files(folder):
        path.unlink()


# Functions of a checkpoint's folder.
DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": _truncate,
    "empty": _empty,
    "zeros": _zero,
    "one bit": _flip_one_bit,
    "no file": lambda folder: largest_file(folder / "params").unlink(),
    "no metadata": lambda folder: (folder / "params" / "_METADATA").unlink(),
    "no item": lambda folder: shutil.rmtree(folder / "params"),
    "no files at all": _remove_all_files,
    "checksums": lambda folder: (folder / "checksums.json").write_bytes(b"\0" * 9),
}
