"""The training loop of all tasks."""

from collections.abc import Callable
from pathlib import Path

import jax
from clu import parameter_overview
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from fqgan_jax.data.loader import to_devices
from fqgan_jax.files import write_atomically
from fqgan_jax.sharding import processes
from fqgan_jax.sharding.mesh import batch_sharding, batch_shards, batch_slice, make_mesh, put_global, replicated
from fqgan_jax.sharding.rules import state_sharding
from fqgan_jax.training.checkpointing import Checkpoints, has_checkpoints
from fqgan_jax.training.from_config import check_batch_size, check_periods
from fqgan_jax.training.hooks import Run, save_checkpoint, training_hooks
from fqgan_jax.training.interruption import interruption
from fqgan_jax.training.logging import RunLog
from fqgan_jax.training.metrics import Meter
from fqgan_jax.training.state import TrainState
from fqgan_jax.training.tasks import Task, tasks
from fqgan_jax.training.warm_start import Started, warm_start
from fqgan_jax.training.workdir import (
    check_description,
    check_learning_rates,
    check_workdir,
    claim_workdir,
    complete_config,
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
    settings = config.train
    mesh = make_mesh(dict(config.mesh))
    check_periods(config.train)
    check_batch_size(config.data.batch_size, batch_shards(mesh))
    task = tasks[config.task](config, batch_shards(mesh))

    # All errors in the input are raised before the work folder changes.
    description, evaluators = task.description(), task.evaluators()
    frozen = put_global(task.frozen(), replicated(mesh))
    check_workdir(config, workdir)
    check_description(description, workdir)
    abstract, state, started = abstract_state(task, config.seed, mesh), None, None
    if not has_checkpoints(workdir):
        state, started = first_state(task, abstract, mesh, workdir=workdir)
    checkpoints = Checkpoints(
        workdir, keep=settings.keep_checkpoints, keep_every=settings.keep_every, keep_best=settings.keep_best
    )
    step = checkpoints.latest_step() or 0
    check_learning_rates(task, workdir, step)
    state = checkpoints.restore(abstract) if state is None else state
    claim_workdir(config, workdir, description)
    if step == 0 and processes.is_first():
        _write_overview(state, workdir)
        if started is not None:
            started.record(workdir)

    sharding = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    train_step = processes.compiled_together(compiled_step(task, sharding, mesh))
    log = RunLog(workdir, step, writes=processes.is_first())
    batches = to_devices(task.batches(step, batch_slice(mesh)), batch_sharding(mesh))
    last_step = min(settings.steps, stop_after or settings.steps)
    hooks = training_hooks(settings, last_step)
    with interruption() as interrupted, tqdm(total=settings.steps, initial=step, desc=task.kind) as progress:
        run = Run(
            step=step,
            state=state,
            num_steps=settings.steps,
            task=task,
            mesh=mesh,
            workdir=workdir,
            evaluators=evaluators,
            meter=Meter(config.data.batch_size, step),
            log=log,
            checkpoints=checkpoints,
            progress=progress,
        )
        while run.step < last_step and not interrupted.before(run.step):
            run.state, metrics = train_step(run.state, frozen, next(batches))
            run.meter.add(metrics)
            run.step += 1
            progress.update()
            for hook in hooks:
                if hook.is_due(run.step):
                    hook.run(run)
        if interrupted:
            save_checkpoint(run)
        checkpoints.close()  # within the block, so that a signal cannot interrupt the last save
    log.close()
    if report := task.skipped.report():
        tqdm.write(report)
    if interrupted:
        tqdm.write(f"Stopped by signal at step {run.step}; the same command continues from there.")
        raise SystemExit(128 + interrupted.signal)
    return run.state


def compiled_step(task: Task, sharding: TrainState, mesh: Mesh) -> Callable:
    """Returns the task's step, jitted for a mesh: `(state, frozen, batch) -> (state, metrics)`; the state is donated.

    The mesh is ambient while the step is traced, and nowhere else: `keep_batch_sharded` in the models' layers reads it.
    Every other program (evaluation, sampling, a step that a test jits) computes the same without that constraint.
    """
    whole = replicated(mesh)

    def step(state, frozen, batch):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return task.step(state, frozen, batch)

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
    networks = {"model": state.params}
    if state.adversary is not None:
        networks["discriminator"] = state.adversary.params
    table = parameter_overview.get_parameter_overview(networks, include_stats=False)
    write_atomically(workdir / "parameters.txt", table + "\n")
    sums = {name: sum(leaf.size for leaf in jax.tree.leaves(params)) for name, params in networks.items()}
    sizes = ", ".join(f"{name} {size / 1e6:.2f} million" for name, size in sums.items())
    tqdm.write(f"Parameters: {sizes} (each in {workdir / 'parameters.txt'})")
