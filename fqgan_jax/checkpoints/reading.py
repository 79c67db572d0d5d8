"""Reads parameters out of the checkpoints of a training run.

Every function takes a work folder, for its newest checkpoint, or `WORKDIR@best` or `WORKDIR@STEP` (`CheckpointName`).
A damaged checkpoint is skipped with a warning; nothing in the folder changes.
"""

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
from jaxtyping import PyTree

from fqgan_jax.checkpoints.checksums import find_damage
from fqgan_jax.checkpoints.layout import CheckpointName, Item, damaged_folders, saved_steps
from fqgan_jax.checkpoints.mirror import local_checkpoint
from fqgan_jax.errors import UserError
from fqgan_jax.files import read_json

# Inference reads no other items, so damage there does not matter.
INFERENCE_ITEMS = tuple(item for item in Item if item != Item.REST)

log = logging.getLogger(__name__)


def load_inference_params(path: Path) -> tuple[PyTree, int]:
    """Loads the parameters of a checkpoint, their moving average if the run keeps one.

    Returns:
      The parameters, and the checkpoint's step.

    Raises:
      UserError: the folder has no such checkpoint, or only damaged ones.
    """
    checkpoint = _intact_checkpoint(path)
    item = Item.EMA if (checkpoint / Item.EMA).exists() else Item.PARAMS
    return read_item(checkpoint / item), int(checkpoint.name)


def checkpoint_step(path: Path) -> int:
    """Returns the step of the checkpoint that a path names.

    Raises:
      UserError: the folder has no such checkpoint, or only damaged ones.
    """
    return int(_intact_checkpoint(path).name)


def load_params_and_average(path: Path) -> tuple[PyTree, PyTree]:
    """Loads the trained parameters of a checkpoint, and their moving average.

    Raises:
      UserError: the folder has no such checkpoint, or the run keeps no moving average.
    """
    checkpoint = _intact_checkpoint(path)
    if not (checkpoint / Item.EMA).exists():
        raise UserError(f"{path} keeps no moving average of the weights (optimizer.ema_decay is 0).")
    return read_item(checkpoint / Item.PARAMS), read_item(checkpoint / Item.EMA)


def load_discriminator_params(path: Path) -> PyTree:
    """Loads the parameters of a checkpoint's discriminator.

    Raises:
      UserError: the folder has no such checkpoint, or the run has no discriminator.
    """
    if not has_item(path, Item.DISCRIMINATOR):
        raise UserError(f"{path} trains no discriminator.")
    return read_item(_intact_checkpoint(path) / Item.DISCRIMINATOR)


def has_item(path: Path, item: Item) -> bool:
    """Returns whether the checkpoints of a run hold an item.

    Raises:
      UserError: the folder has no such checkpoint.
    """
    return (_intact_checkpoint(path) / item).exists()


def read_item(folder: Path) -> PyTree:
    """Reads one item of a checkpoint (`WORKDIR/checkpoints/STEP/ITEM`) to the first local device."""
    import orbax.checkpoint as ocp

    handler = ocp.StandardCheckpointHandler()
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), handler.metadata(folder).tree
    )
    return handler.restore(folder, args=ocp.args.StandardRestore(target))


def score_function(keep_best: str) -> Callable[[Mapping[str, float]], float]:
    """Returns the function that ranks checkpoints by their metrics; higher is better.

    Args:
      keep_best: the config field `train.keep_best`: a metric's name, with "-" before it if lower is better.

    Returns:
      A function of a checkpoint's metrics; -inf if the metric is not among them or is not finite.
    """
    name, sign = keep_best.removeprefix("-"), -1 if keep_best.startswith("-") else 1

    def score(metrics: Mapping[str, float]) -> float:
        value = sign * metrics.get(name, math.nan)
        return value if math.isfinite(value) else -math.inf

    return score


def _intact_checkpoint(path: Path) -> Path:
    """The folder of the checkpoint that a path names; for "newest" and "best", the first one that is not damaged."""
    name = CheckpointName.parse(path)
    for step in _candidates(name):
        folder = local_checkpoint(name.folder / str(step), INFERENCE_ITEMS)
        reason = find_damage(folder, items=INFERENCE_ITEMS)
        if reason is None:
            return folder
        log.warning("The checkpoint %s is damaged (%s) and not used.", name.folder / str(step), reason)
    raise UserError(f"{name} has no checkpoint that is not damaged.")


def _candidates(name: CheckpointName) -> list[int]:
    """Steps of the checkpoints that a name may mean, the preferred one first."""
    steps = saved_steps(name.folder)
    if not steps and not damaged_folders(name.folder):
        raise UserError(f"{name.workdir} has no checkpoint yet: train first, or wait for the first one.")
    if name.which == "newest":
        return steps
    if name.which == "best":
        return _best_first(name, steps)
    if name.which not in steps:
        known = ", ".join(map(str, steps)) or "none"
        raise UserError(f"{name.workdir} has no checkpoint {name.which}, but {known}.")
    return [name.which]


def _best_first(name: CheckpointName, steps: list[int]) -> list[int]:
    """Steps of the checkpoints that were measured, best first; of equal ones the newest first."""
    keep_best = _saved_config(name.workdir).get("train", {}).get("keep_best", "")
    if not keep_best:
        raise UserError(
            f"{name.workdir} was trained without train.keep_best: give the checkpoint's step instead of best."
        )
    score = score_function(keep_best)
    scores = {step: score(_read_metrics(name.folder / str(step))) for step in steps}
    measured = [step for step in steps if math.isfinite(scores[step])]
    if not measured:
        metric = keep_best.removeprefix("-")
        raise UserError(f"No checkpoint in {name.workdir} was measured by {metric!r} (train.keep_best).")
    return sorted(measured, key=lambda step: scores[step], reverse=True)


def _saved_config(workdir: Path) -> dict:
    content = read_json(workdir / "config.json", remedy="give the checkpoint's step instead of best")
    return content if isinstance(content.get("train"), dict) else {}


def _read_metrics(folder: Path) -> dict[str, float]:
    """A checkpoint's metrics; empty if it has none or they are damaged."""
    import orbax.checkpoint as ocp

    folder = local_checkpoint(folder, (Item.METRICS,))
    if not (folder / Item.METRICS).exists() or find_damage(folder, items=(Item.METRICS,)) is not None:
        return {}
    return ocp.JsonCheckpointHandler(filename="metrics").restore(folder / Item.METRICS)
