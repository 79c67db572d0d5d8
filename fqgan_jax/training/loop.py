"""The one training loop."""

import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import jax
from clu import parameter_overview
from jax.sharding import Mesh
from tqdm import tqdm

from fqgan_jax.checkpoints import write_description
from fqgan_jax.config import from_json, to_json
from fqgan_jax.data.loader import to_devices
from fqgan_jax.errors import UserError
from fqgan_jax.files import write_atomically
from fqgan_jax.sharding import processes
from fqgan_jax.sharding.mesh import batch_sharding, batch_shards, batch_slice, make_mesh, put_global, replicated
from fqgan_jax.sharding.rules import state_sharding
from fqgan_jax.training import metrics as metrics_lib
from fqgan_jax.training.checkpointing import Checkpoints
from fqgan_jax.training.from_config import check_batch_size
from fqgan_jax.training.logging import RunLog
from fqgan_jax.training.state import TrainState
from fqgan_jax.training.tasks import Evaluator, Task, tasks


def train(config, workdir: Path, stop_after: int | None = None) -> TrainState:
    """Trains what the config describes, continuing where the work folder stands.

    Args:
      config: from `fqgan_jax.config`.
      workdir: takes config, checkpoints, logs and pictures.
      stop_after: ends the run at this step, as an interruption would, without changing what is computed.

    Raises:
      UserError: bad sizes or data, or a work folder of another config.
    """
    mesh = make_mesh(dict(config.mesh))
    check_batch_size(config.data.batch_size, batch_shards(mesh))
    tasks.check(config.task, "task")
    task = tasks[config.task](config, batch_shards(mesh))
    # Before the work folder: data or weights that are missing leave nothing behind.
    description, frozen = task.description(), put_global(task.frozen(), replicated(mesh))
    claim_workdir(config, workdir)
    if processes.is_first():
        write_description(workdir, description)

    kept = config.train
    checkpoints = Checkpoints(workdir, kept.keep_checkpoints, kept.keep_every, kept.keep_best)
    state, step = _start(task, config.seed, mesh, checkpoints)
    task_step = compiled_step(task, jax.tree.map(lambda leaf: leaf.sharding, state), mesh)
    task_step = processes.compiled_together(task_step)
    log = RunLog(workdir, step, writes=processes.is_first())
    if step == 0 and processes.is_first():
        _write_overview(state, workdir)
    schedules, evaluators = task.learning_rates(config.train.steps), task.evaluators()
    batches = to_devices(task.batches(step, batch_slice(mesh)), batch_sharding(mesh))
    last = min(config.train.steps, stop_after or config.train.steps)
    with _interruption() as interrupted, tqdm(total=config.train.steps, initial=step, desc=task.kind) as progress:
        collected, since, start = None, step, time.monotonic()
        while step < last and not _stops_before(step, interrupted):
            state, metrics = task_step(state, frozen, next(batches))
            collected = metrics if collected is None else _merge(collected, metrics)
            step += 1
            progress.update()
            if step % config.train.log_every == 0 or step == last:
                values = metrics_lib.compute(collected)
                rate = (step - since) * config.data.batch_size / (time.monotonic() - start)
                values |= {name: float(schedule(step)) for name, schedule in schedules.items()}
                rates = {"images_per_second": rate, "images_per_second_per_chip": rate / mesh.size}
                log.scalars(step, values | rates | {"skipped": int(state.skipped)})
                progress.set_postfix_str(f"loss {values[task.headline]:.4f}, {rate:.0f} images/s")
                _check_progress(int(state.skipped), step, config.train.max_skipped, workdir)
                checkpoints.check()
                collected, since, start = None, step, time.monotonic()
            due = [each for each in evaluators.values() if step % each.every == 0 or step == config.train.steps]
            if due:
                _evaluate(due, state, step, mesh, log)
                since, start = step, time.monotonic()
            if step % config.train.checkpoint_every == 0 or step == last:
                checkpoints.save(state, log.validation)
        if interrupted:
            checkpoints.save(state, log.validation)
        checkpoints.close()  # in here, so that a signal does not cut the last save off
    log.close()
    if report := task.skipped.report():
        tqdm.write(report)
    if interrupted:
        tqdm.write(f"Stopped by signal at step {step}; the same command continues from there.")
        raise SystemExit(128 + interrupted[0])
    return state


def compiled_step(task: Task, sharding: TrainState, mesh: Mesh) -> Callable:
    """The task's step, jitted for a mesh: `(state, frozen, batch) -> (state, metrics)`; the old state is given up."""
    whole = replicated(mesh)
    arguments, results = (sharding, whole, batch_sharding(mesh)), (sharding, whole)

    def step(state, frozen, batch):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # for `keep_batch_sharded`
            return task.step(state, frozen, batch)

    return jax.jit(step, in_shardings=arguments, out_shardings=results, donate_argnums=0)


def _write_overview(state: TrainState, workdir: Path) -> None:
    """Every parameter's name, shape and size in `parameters.txt`, and one line of sums on the screen."""
    networks = {"model": state.params} | ({"discriminator": state.adversary.params} if state.adversary else {})
    table = parameter_overview.get_parameter_overview(networks, include_stats=False)
    write_atomically(workdir / "parameters.txt", table + "\n")
    sums = {name: sum(leaf.size for leaf in jax.tree.leaves(params)) for name, params in networks.items()}
    sizes = ", ".join(f"{name} {size / 1e6:.2f} million" for name, size in sums.items())
    tqdm.write(f"Parameters: {sizes} (each in {workdir / 'parameters.txt'})")


_merge = jax.jit(metrics_lib.merge)


def _start(task: Task, seed: int, mesh, checkpoints: Checkpoints) -> tuple[TrainState, int]:
    """The newest checkpoint's state, or a fresh one, initialized sharded: nothing is ever whole on one device."""
    shapes = jax.eval_shape(lambda: task.init(jax.random.key(seed)))
    sharding = state_sharding(shapes, mesh)
    if checkpoints.latest_step() is None:
        init = jax.jit(lambda: task.init(jax.random.key(seed)), out_shardings=sharding)
        return processes.compiled_together(init)(), 0
    abstract = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, sharding
    )
    return checkpoints.restore(abstract), checkpoints.latest_step()


def _check_progress(skipped: int, step: int, limit: int, workdir: Path) -> None:
    """Raises `UserError` where too many updates in a row were skipped because something was not finite."""
    if skipped >= limit:
        raise UserError(
            f"The last {skipped} updates before step {step} were skipped because a loss or gradient was not finite. "
            f"The checkpoints in {workdir} are intact: lower the learning rate, or compute in float32, in a new folder."
        )


def _evaluate(due: list[Evaluator], state: TrainState, step: int, mesh: Mesh, log: RunLog) -> None:
    """Runs evaluators and logs their numbers, in one line, and pictures."""
    values: dict[str, float] = {}
    for evaluator in due:
        found, pictures = evaluator.run(state.inference_params, mesh)
        log.pictures(step, pictures)
        values |= {f"validation/{name}": value for name, value in found.items()}
    if values:
        log.scalars(step, values)


# Fields that may change between runs in one work folder: they do not touch what is computed.
FREE_FIELDS = ("train.", "mesh.", "data.num_threads", "data.num_workers", "sample.", "evaluation.")


def claim_workdir(config, workdir: Path) -> None:
    """Writes the config into the work folder, or checks that the folder holds the same one.

    Raises:
      UserError: the folder belongs to a run with another config; the fields that differ are named.
    """
    path = workdir / "config.json"
    workdir.mkdir(parents=True, exist_ok=True)
    if path.exists():
        theirs, ours = (_flat(from_json(text)) for text in (path.read_text(), to_json(config)))
        differing = sorted(
            name
            for name in theirs.keys() | ours.keys()
            if not name.startswith(FREE_FIELDS) and theirs.get(name) != ours.get(name)
        )
        if differing:
            changes = ", ".join(f"{name} {theirs.get(name)!r} -> {ours.get(name)!r}" for name in differing[:5])
            raise UserError(
                f"The work folder {workdir} holds a run with another config ({changes}): "
                "choose another --workdir, or the config it was started with."
            )
    if processes.is_first():
        write_atomically(path, to_json(config))


def _flat(config, prefix: str = "") -> dict:
    flat = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if hasattr(value, "items") else {prefix + name: value}
    return flat


@contextmanager
def _interruption():
    """Collects SIGTERM and SIGINT so that the loop can save before it stops; a second one ends at once.

    Where there are many processes JAX itself notices SIGTERM and tells all of them, so SIGINT becomes one.
    """
    received: list[int] = []

    def receive(number, frame):
        received.append(number)
        for each in previous:
            signal.signal(each, signal.SIG_DFL)

    def forward(number, frame):
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)

    handlers = {signal.SIGTERM: receive, signal.SIGINT: receive}
    if jax.process_count() > 1:
        handlers = {signal.SIGINT: forward}
    try:
        previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    except ValueError:  # not in the main thread, as in a notebook's worker: signals stay as they are
        previous = {}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _stops_before(step: int, interrupted: list[int]) -> bool:
    """Whether a signal, to this process or to any of many, ends the run before this step; the same on all."""
    if jax.process_count() > 1 and processes.agreed_to_stop(step):
        interrupted.append(signal.SIGTERM)
    return bool(interrupted)
