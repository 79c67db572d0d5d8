"""Saving and restoring the state of a training run: atomic, asynchronous, exact."""

import dataclasses
import itertools
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers

from fqgan_jax.checkpoints import (
    FOLDER,
    Item,
    Mirror,
    damaged_folders,
    find_damage,
    saved_steps,
    score_function,
    write_checksums,
)
from fqgan_jax.errors import UserError
from fqgan_jax.files import is_full_disk
from fqgan_jax.sharding import processes
from fqgan_jax.storage import in_storage
from fqgan_jax.training import first_process
from fqgan_jax.training.state import Adversary, TrainState

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints in a work folder; parameters, moving average, discriminator and the rest are items of each.

    Damaged checkpoints are set aside first, as `damaged_STEP`: the run continues from the newest intact one. Each of
    many processes writes its part, but in object storage the first one alone writes and reads.

    Args:
      workdir: work folder of the run.
      keep: number of newest checkpoints to keep.
      keep_every: checkpoints at multiples of this step are kept forever; 0: none.
      keep_best: the metric whose best checkpoint is kept, with "-" before it if lower is better; empty: none.

    Raises:
      UserError: there are checkpoints, but every one is damaged.
    """

    def __init__(self, workdir: Path, *, keep: int, keep_every: int = 0, keep_best: str = ""):
        if keep < 1 or keep_every < 0:
            raise UserError(
                f"train.keep_checkpoints must be 1 or more and train.keep_every 0 or more, not {keep} and {keep_every}."
            )
        self._by_first = jax.process_count() > 1 and in_storage(workdir)
        self._manager: ocp.CheckpointManager | None = None
        if self._by_first and not processes.is_first():
            return
        self._mirror = Mirror((workdir / FOLDER).absolute())
        self._folder = self._mirror.local
        self._keep_best = keep_best
        self._saving: int | None = None
        if processes.is_first():
            _set_damaged_aside(self._mirror)
        if not self._by_first:
            multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_preservation_policy(keep, keep_every, keep_best),
            best_fn=score_function(keep_best) if keep_best else None,  # without it no metrics are written
            create=not self._by_first,  # the mirror's folder is there
            cleanup_tmp_directories=True,  # left half-written by a killed process
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_checksums),
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                active_processes={0} if self._by_first else None,
                barrier_sync_key_prefix="first" if self._by_first else None,
            ),
        )
        handlers = {item: _handler() for item in (Item.PARAMS, Item.EMA, Item.DISCRIMINATOR, Item.REST)}
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

    def latest_step(self) -> int | None:
        """Returns the step of the newest complete checkpoint, None if there is none."""
        return self._said(lambda manager: manager.latest_step())

    def save(self, state: TrainState, validation: dict[str, float] | None = None) -> None:
        """Starts saving, unless this step is saved already; the state may be donated as soon as this returns.

        Args:
          state: what is saved.
          validation: metrics of the last evaluation, which decide which checkpoint is the best.

        Raises:
          UserError: this or the previous checkpoint could not be written because the disk is full.
        """
        step = int(state.step)
        if self._said(lambda manager: step in manager.all_steps()):
            return
        content: TrainState | None = first_process.gather(state) if self._by_first else state
        if self._manager is None or content is None:
            return
        self._check_metric(step, validation or {})
        saves = {name: ocp.args.PyTreeSave(item) for name, item in _items(content).items()}
        with self._full_disk():
            self._manager.wait_until_finished()
            self._mirror.prune()
            self._saving = step
            self._check_space(sum(leaf.nbytes for leaf in jax.tree.leaves(content)))
            self._manager.save(step, args=ocp.args.Composite(**saves), metrics=validation or {})

    def restore(self, abstract: TrainState) -> TrainState:
        """Returns the newest state, with the shapes, types and shardings of `abstract`."""
        wanted = _items(abstract)
        read = self._read(self.latest_step(), wanted)
        items = first_process.scatter(read, wanted) if self._by_first else read
        assert items is not None
        rest = _loaded_fields(items[Item.REST])
        if "adversary" in rest:
            rest["adversary"] = Adversary(params=items[Item.DISCRIMINATOR], **_loaded_fields(rest["adversary"]))
        return dataclasses.replace(abstract, params=items[Item.PARAMS], ema=items.get(Item.EMA), **rest)

    def _read(self, step: int | None, wanted: dict[str, PyTree]) -> dict[str, PyTree] | None:
        """The items of a checkpoint, as global arrays or, if the first process alone reads, as its NumPy arrays."""
        if self._manager is None:
            return None
        arguments = _as_numpy if self._by_first else ocp.checkpoint_utils.construct_restore_args
        restores = {name: ocp.args.PyTreeRestore(item, restore_args=arguments(item)) for name, item in wanted.items()}
        items = self._manager.restore(step, args=ocp.args.Composite(**restores))
        return {name: items[name] for name in wanted}

    def _said(self, ask: Callable[[ocp.CheckpointManager], object]) -> Any:
        """What the manager says; of many processes, what that of the first one says where there is no other."""
        answer = None if self._manager is None else ask(self._manager)
        return json.loads(processes.exchange(json.dumps(answer))[0]) if self._by_first else answer

    def check(self) -> None:
        """Raises the error that stopped the last save, if any; does not wait.

        Raises:
          UserError: the disk is full.
        """
        if self._manager is not None and not self._manager.is_saving_in_progress():
            with self._full_disk():
                self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until everything is written.

        Raises:
          UserError: the disk is full.
        """
        if self._manager is not None:
            with self._full_disk():
                self._manager.close()
                self._mirror.prune()
        if self._by_first:
            processes.exchange("everything is written")

    def _check_metric(self, step: int, validation: dict[str, float]) -> None:
        """Warns if the metric that decides which checkpoint is the best was not measured."""
        metric = self._keep_best.removeprefix("-")
        if metric and validation and metric not in validation:
            known = ", ".join(sorted(validation))
            log.warning(
                "The checkpoint of step %d has no %s to compare (measured: %s): name one of these in train.keep_best, "
                "or give the file that adds the metric with --plugin.",
                *(step, metric, known),
            )

    def _write_checksums(self) -> None:
        # Called when all items are written and before the folder takes its name, so they belong to the whole.
        partial = next(self._folder.glob(f"{self._saving}{ocp.path.atomicity_types.TMP_DIR_SUFFIX}*"))
        write_checksums(partial)
        assert self._saving is not None
        self._mirror.upload(partial, self._saving)

    def _check_space(self, needed: int) -> None:
        """Raises `UserError` if a checkpoint does not fit: a partial checkpoint would fill the disk."""
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise self._unwritten(f"it needs about {needed / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free")

    @contextmanager
    def _full_disk(self) -> Iterator[None]:
        """Raises errors of a full disk as a `UserError`; orbax and tensorstore raise several types."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            if not is_full_disk(error):
                raise
            raise self._unwritten(is_full_disk(error)) from error

    def _unwritten(self, reason: str) -> UserError:
        return UserError(
            f"The checkpoint of step {self._saving} could not be written to {self._mirror}: {reason}. "
            "Older checkpoints are intact: free some space, then start the same command again."
        )


def has_checkpoints(workdir: Path) -> bool:
    """Returns whether a work folder holds checkpoints, be they damaged."""
    folder = (workdir / FOLDER).absolute()
    return bool(saved_steps(folder) or damaged_folders(folder))


def _preservation_policy(keep: int, keep_every: int, keep_best: str) -> checkpoint_managers.PreservationPolicy:
    policies = [checkpoint_managers.LatestN(keep)]
    if keep_every:
        policies.append(checkpoint_managers.EveryNSteps(keep_every))
    if keep_best:
        score = score_function(keep_best)
        policies.append(checkpoint_managers.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False))
    return checkpoint_managers.AnyPreservationPolicy(policies)


def _handler() -> ocp.PyTreeCheckpointHandler:
    """Returns what writes and reads one item.

    By default orbax cuts replicated arrays so that every replica writes a part. That serves many hosts; on one host it
    only compiles a slice for each shape and device, which held up the first save for seconds.
    """
    arrays = ocp.type_handlers.ArrayHandler(use_replica_parallel=jax.process_count() > 1)
    numpy = ocp.type_handlers.NumpyHandler()  # for what the first process writes alone
    registry = ocp.type_handlers.create_type_handler_registry((jax.Array, arrays), (np.ndarray, numpy))
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)


def _as_numpy(item: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype), item)


# Names of fields in checkpoints, if they differ from those of the dataclasses.
_SAVED_NAMES = {"opt_state": "optimizer"}


def _items(state: TrainState) -> dict[str, PyTree]:
    """Splits a state into the items that inference reads (parameters, moving average, discriminator) and the rest."""
    rest = _saved_fields(state)
    items = {name: rest.pop(name) for name in (Item.PARAMS, Item.EMA) if name in rest}
    if state.adversary is not None:
        adversary = _saved_fields(state.adversary)
        items[Item.DISCRIMINATOR] = adversary.pop("params")
        rest["adversary"] = adversary
    return items | {Item.REST: rest}


def _saved_fields(value: TrainState | Adversary) -> dict[str, PyTree]:
    """The fields that are not None, by their names in checkpoints."""
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {_SAVED_NAMES.get(name, name): item for name, item in fields.items() if item is not None}


def _loaded_fields(saved: dict[str, PyTree]) -> dict[str, PyTree]:
    """The inverse of `_saved_fields`."""
    names = {saved_name: name for name, saved_name in _SAVED_NAMES.items()}
    return {names.get(name, name): item for name, item in saved.items()}


def _set_damaged_aside(mirror: Mirror) -> None:
    """Renames damaged checkpoints until the newest is intact, and older ones whose metrics cannot be read."""
    intact, folder = False, mirror.local
    for step in saved_steps(folder):
        if not intact:
            mirror.fetch(step)
        reason = find_damage(folder / str(step), items=(Item.METRICS,) if intact else tuple(Item))
        if reason:
            aside = next(path for path in _names_aside(folder, step) if not path.exists())
            log.warning("The checkpoint of step %d is damaged (%s): it is set aside as %s.", step, reason, aside)
            mirror.rename(step, aside.name)
        intact = intact or not reason
    damaged = damaged_folders(folder)
    if damaged and not intact:
        raise UserError(
            f"Every checkpoint in {mirror} is damaged ({', '.join(path.name for path in damaged)}): put an intact copy "
            "there, named by its step, or start anew in another --workdir."
        )


def _names_aside(folder: Path, step: int) -> Iterator[Path]:
    yield folder / f"damaged_{step}"
    yield from (folder / f"damaged_{step}_{count}" for count in itertools.count(2))
