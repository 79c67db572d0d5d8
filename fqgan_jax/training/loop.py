"""The training loop of all tasks."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
from clu import parameter_overview
from jax.sharding import Mesh
from jaxtyping import PyTree
from ml_collections import ConfigDict
from tqdm import tqdm

from fqgan_jax.config import to_json
from fqgan_jax.data.loader import to_devices
from fqgan_jax.files import write_atomically
from fqgan_jax.sharding import processes
from fqgan_jax.sharding.mesh import batch_sharding, batch_shards, batch_slice, make_mesh, put_global, replicated
from fqgan_jax.sharding.rules import state_sharding
from fqgan_jax.storage import set_cache
from fqgan_jax.training.checkpointing import Checkpoints, has_checkpoints
from fqgan_jax.training.data_record import check_data, record_data
from fqgan_jax.training.from_config import check_batch_size
from fqgan_jax.training.hooks import SKIPPED_SHARE, Run, save_checkpoint, training_hooks
from fqgan_jax.training.interruption import interruption
from fqgan_jax.training.loggers import check_loggers
from fqgan_jax.training.logging import RunLog
from fqgan_jax.training.metrics import Meter, average
from fqgan_jax.training.state import TrainState
from fqgan_jax.training.tasks import Evaluator, Task, tasks
from fqgan_jax.training.warm_start import Started, warm_start
from fqgan_jax.training.workdir import (
    check_description,
    check_learning_rates,
    check_workdir,
    claim_workdir,
    complete_config,
    exclusive,
)


def train(config: ConfigDict, workdir: Path, stop_after: int | None = None) -> TrainState:
    """Trains what the config describes, from the newest checkpoint in the work folder if there is one.

    Args:
      config: from `fqgan_jax.config`.
      workdir: folder for config, checkpoints, logs and pictures.
      stop_after: ends the run at this step, as an interruption would, without changing what is computed.

    Returns:
      The state after the last step.

    Raises:
      UserError: bad sizes or data, or a work folder of another run. The folder is then unchanged.
    """
    config = complete_config(config)
    set_cache(config.data.cache_dir, config.data.cache_gb)
    with exclusive(workdir):
        return _train(config, workdir, stop_after)


def _train(config: ConfigDict, workdir: Path, stop_after: int | None) -> TrainState:
    """Trains in a work folder that no other process uses."""
    mesh = make_mesh(dict(config.mesh))
    check_batch_size(config.data.batch_size, batch_shards(mesh))
    task = tasks[config.task](config, batch_shards(mesh))
    last_step = min(config.train.steps, stop_after or config.train.steps)
    beginning = _begin(task, mesh, workdir)
    train_step = processes.compiled_together(compiled_step(task, beginning.sharding, mesh))
    hooks = training_hooks(config.train, last_step)
    with interruption() as interrupted, _run_from(beginning, task, mesh, workdir=workdir) as run:
        batches = to_devices(task.batches(run.step, batch_slice(mesh)), batch_sharding(mesh))
        while run.step < last_step and not interrupted.before(run.step):
            run.state, metrics = train_step(run.state, beginning.frozen, next(batches))
            run.meter.add(metrics)
            run.step += 1
            run.progress.update()
            for hook in hooks:
                if hook.is_due(run.step):
                    hook.run(run)
        if interrupted:
            save_checkpoint(run)
        run.checkpoints.close()  # within the block, so that a signal cannot interrupt the last save
    if report := task.skipped.report():
        tqdm.write(report)
    if interrupted.signal is not None:
        tqdm.write(f"Stopped by signal at step {run.step}; the same command continues from there.")
        raise SystemExit(128 + interrupted.signal)
    return run.state


@dataclasses.dataclass(kw_only=True)
class _Beginning:
    """What a run begins with, or goes on with.

    Attributes:
      state: after `step` steps; None once the run has it, whose first step donates it.
      sharding: of the state.
      frozen: parameters of frozen networks.
      evaluators: by name.
      checkpoints: in the work folder.
      step: steps made so far.
    """

    state: TrainState | None
    sharding: TrainState
    frozen: PyTree
    evaluators: Mapping[str, Evaluator]
    checkpoints: Checkpoints
    step: int


def _begin(task: Task, mesh: Mesh, workdir: Path) -> _Beginning:
    """Returns what a run begins with, and claims the work folder for it.

    Raises:
      UserError: bad sizes or data, or a work folder of another run. The folder is then unchanged.
    """
    config, settings = task.config, task.config.train
    check_loggers(settings.logger)
    description, evaluators = task.description(), task.evaluators()
    frozen = put_global(task.frozen(), replicated(mesh))
    check_workdir(config, workdir)
    check_description(description, workdir)
    data = check_data(task, workdir)
    abstract, state, started = abstract_state(task, config.seed, mesh), None, None
    if not has_checkpoints(workdir):
        state, started = first_state(task, abstract, mesh, workdir=workdir)
    checkpoints = Checkpoints(
        workdir, keep=settings.keep_checkpoints, keep_every=settings.keep_every, keep_best=settings.keep_best
    )
    step = checkpoints.latest_step() or 0
    check_learning_rates(task, workdir, step)
    state = checkpoints.restore(abstract) if state is None else state
    # Everything that can be wrong has been found by now.
    claim_workdir(config, workdir, description)
    record_data(data, workdir)
    if step == 0 and processes.is_first():
        _write_overview(state, workdir)
        if started is not None:
            started.record(workdir)
    return _Beginning(
        state=state,
        sharding=jax.tree.map(lambda leaf: leaf.sharding, abstract),
        frozen=frozen,
        evaluators=evaluators,
        checkpoints=checkpoints,
        step=step,
    )


@contextmanager
def _run_from(beginning: _Beginning, task: Task, mesh: Mesh, *, workdir: Path) -> Iterator[Run]:
    """Opens the log and the progress bar of a run, and closes them."""
    config, step = task.config, beginning.step
    log = RunLog(
        workdir, step, writes=processes.is_first(), loggers=config.train.logger, config=json.loads(to_json(config))
    )
    state, beginning.state = beginning.state, None
    assert state is not None
    with closing(log), tqdm(total=config.train.steps, initial=step, desc=task.kind) as progress:
        yield Run(
            step=step,
            state=state,
            num_steps=config.train.steps,
            task=task,
            mesh=mesh,
            workdir=workdir,
            evaluators=beginning.evaluators,
            meter=Meter(config.data.batch_size, step),
            log=log,
            checkpoints=beginning.checkpoints,
            progress=progress,
        )


def compiled_step(task: Task, sharding: TrainState, mesh: Mesh) -> jax.stages.Wrapped:
    """Returns the task's step, jitted for a mesh: `(state, frozen, batch) -> (state, metrics)`; the state is donated.

    The mesh is ambient while the step is traced, and nowhere else: `keep_batch_sharded` in the models' layers reads it.
    Every other program (evaluation, sampling, a step that a test jits) computes the same without that constraint.
    """
    whole = replicated(mesh)

    def step(state, frozen, batch):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            state, metrics = task.step(state, frozen, batch)
        return state, metrics | {SKIPPED_SHARE: average((state.skipped > 0).astype(jnp.float32))}

    return jax.jit(
        step,
        in_shardings=(sharding, whole, batch_sharding(mesh)),
        out_shardings=(sharding, whole),
        donate_argnums=0,
    )


def abstract_state(task: Task, seed: int, mesh: Mesh) -> TrainState:
    """Returns the shapes, types and shardings of the task's state on a mesh.

    Raises:
      UserError: the mesh does not divide a parameter, or a sharding rule for this kind of model matches none.
    """
    shapes = jax.eval_shape(lambda: task.init(jax.random.key(seed)))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        state_sharding(shapes, mesh, kind=task.kind),
    )


def first_state(task: Task, abstract: TrainState, mesh: Mesh, *, workdir: Path) -> tuple[TrainState, Started | None]:
    """Returns the state of a run's first step, initialized in shards: no device holds all of it.

    Its weights are those that `train.init_from` names, if any; then what it started from is returned too.

    Raises:
      UserError: weights that do not fit, or others than when the run began.
    """
    sharding = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    init = jax.jit(lambda: task.init(jax.random.key(task.config.seed)), out_shardings=sharding)
    state, started = processes.compiled_together(init)(), None
    if path := task.config.train.init_from:
        state, started = warm_start(state, path, task.warm_parts(), workdir=workdir)
        tqdm.write(started.report())
    return task.first_state(state, mesh), started


def _write_overview(state: TrainState, workdir: Path) -> None:
    """Writes each parameter's name, shape and size to `parameters.txt`, and prints the sums in one line."""
    networks = state.networks
    table = parameter_overview.get_parameter_overview(networks, include_stats=False)
    write_atomically(workdir / "parameters.txt", table + "\n")
    sums = {name: sum(leaf.size for leaf in jax.tree.leaves(params)) for name, params in networks.items()}
    sizes = ", ".join(f"{name} {size / 1e6:.2f} million" for name, size in sums.items())
    tqdm.write(f"Parameters: {sizes} (each in {workdir / 'parameters.txt'})")
