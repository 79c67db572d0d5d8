"""Reads parameters out of the checkpoints of a training run."""

import logging
import math
from collections.abc import Callable
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from fqgan_jax.checkpoints.checksums import damage
from fqgan_jax.config import from_json
from fqgan_jax.errors import UserError

FOLDER = "checkpoints"

log = logging.getLogger(__name__)


def load_inference_params(workdir: Path) -> tuple[PyTree, int]:
    """Parameters of a checkpoint (their moving average where one was kept), and its step.

    Args:
      workdir: of the run, for its newest checkpoint; `WORKDIR@STEP` and `WORKDIR@best` name another one.

    Raises:
      UserError: the folder has no such checkpoint, or only damaged ones.
    """
    checkpoint = _chosen(workdir)
    average = checkpoint / "ema"
    return _read(average if average.exists() else checkpoint / "params"), int(checkpoint.name)


def load_params_and_average(workdir: Path) -> tuple[PyTree, PyTree]:
    """Parameters of a checkpoint as they are trained, and their moving average; see `load_inference_params`.

    Raises:
      UserError: the folder has no such checkpoint, or the run keeps no moving average.
    """
    checkpoint = _chosen(workdir)
    if not (checkpoint / "ema").exists():
        raise UserError(f"{workdir} keeps no moving average of the weights (optimizer.ema_decay is 0).")
    return _read(checkpoint / "params"), _read(checkpoint / "ema")


def load_discriminator_params(workdir: Path) -> PyTree:
    """Parameters of a checkpoint's discriminator; see `load_inference_params`.

    Raises:
      UserError: the folder has no such checkpoint, or the run has no discriminator.
    """
    item = _chosen(workdir) / "discriminator"
    if not item.exists():
        raise UserError(f"{workdir} trains no discriminator.")
    return _read(item)


def has_average(workdir: Path) -> bool:
    """Whether the run keeps a moving average. UserError where it has no checkpoint yet."""
    return (_chosen(workdir) / "ema").exists()


def split_checkpoint(path: Path) -> tuple[Path, str]:
    """The work folder in `WORKDIR@STEP` or `WORKDIR@best`, and which of its checkpoints; "" for the newest."""
    name, _, which = path.name.rpartition("@")
    if name and (which == "best" or which.isdigit()) and not path.exists():
        return path.with_name(name), which
    return path, ""


def _chosen(path: Path) -> Path:
    """Folder of the checkpoint that is meant, or where it is damaged of the next one that is not."""
    workdir, which = split_checkpoint(path)
    folder = (workdir / FOLDER).absolute()
    steps = saved_steps(folder)
    if not steps and not damaged_folders(folder):
        raise UserError(f"{workdir} has no checkpoint yet: train first, or wait for the first one.")
    if which == "best":
        steps = _by_score(workdir, folder, steps)
    elif which:
        if int(which) not in steps:
            raise UserError(f"{workdir} has no checkpoint {which}, but {', '.join(map(str, steps)) or 'none'}.")
        steps = [int(which)]
    for step in steps:
        reason = damage(folder / str(step), without="rest")
        if not reason:
            return folder / str(step)
        log.warning("The checkpoint %s is damaged (%s) and not used.", folder / str(step), reason)
    raise UserError(f"{path} has no checkpoint that is not damaged.")


def saved_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, newest first."""
    # Orbax gives a step's folder its name only when it is complete.
    return sorted((int(path.name) for path in folder.glob("*") if path.name.isdigit()), reverse=True)


def _by_score(workdir: Path, folder: Path, steps: list[int]) -> list[int]:
    """Steps of the measured checkpoints, best first; of equal ones the newest."""
    keep_best = from_json((workdir / "config.json").read_text()).get("train", {}).get("keep_best", "")
    if not keep_best:
        raise UserError(f"{workdir} was trained without train.keep_best: give the checkpoint's step instead of best.")
    score, metrics = scorer(keep_best), ocp.JsonCheckpointHandler(filename="metrics")
    scores = {
        step: score(metrics.restore(folder / str(step) / "metrics"))
        for step in steps
        if (folder / str(step) / "metrics").exists() and not damage(folder / str(step), only="metrics")
    }
    measured = [step for step in scores if math.isfinite(scores[step])]
    if not measured:
        raise UserError(
            f"No checkpoint in {workdir} was measured by {keep_best.removeprefix('-')!r} (train.keep_best)."
        )
    return sorted(measured, key=lambda step: scores[step], reverse=True)


def scorer(keep_best: str) -> Callable[[dict[str, float]], float]:
    """Of a checkpoint's metrics: higher is better, without the metric or where it is not finite it is the worst."""
    name, sign = keep_best.removeprefix("-"), -1 if keep_best.startswith("-") else 1

    def score(metrics: dict[str, float]) -> float:
        value = sign * metrics.get(name, math.nan)
        return value if math.isfinite(value) else -math.inf

    return score


def damaged_folders(folder: Path) -> list[Path]:
    return sorted(folder.glob("damaged_*"))


def _read(item: Path) -> PyTree:
    handler = ocp.StandardCheckpointHandler()
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), handler.metadata(item).tree
    )
    return handler.restore(item, args=ocp.args.StandardRestore(target))
