"""Checkpoints of a training run: atomic, asynchronous, exact; and parameters alone for inference."""

import dataclasses
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from fqgan_jax.errors import UserError
from fqgan_jax.training.state import Adversary, TrainState

FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints in a work folder. Parameters, moving average and the rest are separate items of each."""

    def __init__(self, workdir: Path, keep: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self._manager = ocp.CheckpointManager((workdir / FOLDER).absolute(), options=options)

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, state: TrainState) -> None:
        """Starts saving; the state may change as soon as this returns."""
        step = int(state.step)
        if step not in self._manager.all_steps():
            saves = {name: ocp.args.StandardSave(item) for name, item in _items(state).items()}
            self._manager.save(step, args=ocp.args.Composite(**saves))

    def restore(self, abstract: TrainState) -> TrainState:
        """The newest state, laid out as `abstract` (shapes, types, shardings) says."""
        restores = {name: ocp.args.StandardRestore(item) for name, item in _items(abstract).items()}
        items = self._manager.restore(self.latest_step(), args=ocp.args.Composite(**restores))
        rest = items["rest"]
        if "adversary" in rest:
            rest["adversary"] = Adversary(items["discriminator"], **rest["adversary"])
        return abstract.replace(params=items["params"], ema=items.get("ema"), **rest)

    def close(self) -> None:
        """Waits until everything is written."""
        self._manager.wait_until_finished()
        self._manager.close()


def _items(state: TrainState) -> dict[str, PyTree]:
    """What lies apart for others to read (parameters, their average, the discriminator), and the rest."""
    rest = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    rest = {name: item for name, item in rest.items() if item is not None}
    items = {name: rest.pop(name) for name in ("params", "ema") if name in rest}
    if "adversary" in rest:
        adversary = {field.name: getattr(state.adversary, field.name) for field in dataclasses.fields(Adversary)}
        items["discriminator"] = adversary.pop("params")
        rest["adversary"] = adversary
    return items | {"rest": rest}


def load_inference_params(workdir: Path) -> tuple[PyTree, int]:
    """Parameters of the newest checkpoint (their moving average where one was kept), and its step.

    Raises:
      UserError: the folder has no checkpoint yet.
    """
    newest = _newest(workdir)
    return _read(newest / ("ema" if has_average(workdir) else "params")), int(newest.name)


def load_params_and_average(workdir: Path) -> tuple[PyTree, PyTree]:
    """Parameters of the newest checkpoint as they are trained, and their moving average.

    Raises:
      UserError: the folder has no checkpoint yet, or the run keeps no moving average.
    """
    if not has_average(workdir):
        raise UserError(f"{workdir} keeps no moving average of the weights (optimizer.ema_decay is 0).")
    newest = _newest(workdir)
    return _read(newest / "params"), _read(newest / "ema")


def load_discriminator_params(workdir: Path) -> PyTree:
    """Parameters of the newest checkpoint's discriminator.

    Raises:
      UserError: the folder has no checkpoint yet, or the run has no discriminator.
    """
    item = _newest(workdir) / "discriminator"
    if not item.exists():
        raise UserError(f"{workdir} trains no discriminator.")
    return _read(item)


def has_average(workdir: Path) -> bool:
    """Whether the run keeps a moving average. UserError where it has no checkpoint yet."""
    return (_newest(workdir) / "ema").exists()


def _newest(workdir: Path) -> Path:
    """Folder of the newest checkpoint."""
    folder = (workdir / FOLDER).absolute()
    # Orbax gives a step's folder its name only when it is complete.
    steps = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
    if not steps:
        raise UserError(f"{workdir} has no checkpoint yet: train first, or wait for the first one.")
    return folder / str(max(steps))


def _read(item: Path) -> PyTree:
    handler = ocp.StandardCheckpointHandler()
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), handler.metadata(item).tree
    )
    return handler.restore(item, args=ocp.args.StandardRestore(target))
