"""Periodic actions of a run: log, check, evaluate, save."""

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, PyTree
from tqdm import tqdm

from fqgan_jax.errors import DivergedError
from fqgan_jax.training.checkpointing import Checkpoints
from fqgan_jax.training.logging import VALIDATION, RunLog
from fqgan_jax.training.metrics import Meter
from fqgan_jax.training.state import TrainState
from fqgan_jax.training.tasks import Evaluator, Task

SKIPPED_SHARE = "skipped_share"  # of the updates since the last log line
WINDOW = 10  # log lines
FIRST_STEPS = 10


@dataclasses.dataclass(kw_only=True)
class Run:
    """A run as the hooks see it after each step.

    Attributes:
      step: steps made, skipped ones included.
      state: after that step.
      num_steps: `train.steps`, with which the training ends.
      task, mesh, workdir: task, mesh and work folder of the run.
      evaluators: evaluators of the task, by name.
      meter: metrics and speed since the last log line.
      log: log of the run.
      checkpoints: in the work folder.
      progress: the progress bar.
    """

    step: int
    state: TrainState
    num_steps: int
    task: Task
    mesh: Mesh
    workdir: Path
    evaluators: Mapping[str, Evaluator]
    meter: Meter
    log: RunLog
    checkpoints: Checkpoints
    progress: tqdm


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hook:
    """A periodic action of a run.

    Attributes:
      run: called with the run.
      every: steps between two calls.
      also_at: a step after which it is called too.
    """

    run: Callable[[Run], None]
    every: int
    also_at: int

    def is_due(self, step: int) -> bool:
        """Returns whether it is called after this step."""
        return step % self.every == 0 or step == self.also_at


def training_hooks(settings, last_step: int) -> tuple[Hook, ...]:
    """Returns the hooks of a run, in the order in which they are called after a step.

    Args:
      settings: `config.train`.
      last_step: the step after which this run ends.
    """
    return (
        Hook(run=log_metrics, every=settings.log_every, also_at=last_step),
        Hook(
            run=SkippedSteps(settings.max_skipped, settings.largest_skipped_share),
            every=settings.log_every,
            also_at=last_step,
        ),
        Hook(run=check_last_save, every=settings.log_every, also_at=last_step),
        Hook(run=evaluate, every=1, also_at=last_step),  # each evaluator has a period of its own
        Hook(run=save_checkpoint, every=settings.checkpoint_every, also_at=last_step),
    )


def log_metrics(run: Run) -> None:
    """Logs the metrics since the last line, the learning rates and the speed."""
    values, rate = run.meter.read(run.step)
    schedules = run.task.learning_rates(run.num_steps)
    values |= {name: float(schedule(run.step)) for name, schedule in schedules.items()}
    rates = {"images_per_second": rate, "images_per_second_per_chip": rate / run.mesh.size}
    run.log.scalars(run.step, values | rates | {"skipped": int(run.state.skipped)})
    run.progress.set_postfix_str(f"loss {values[run.task.headline]:.4f}, {rate:.0f} images/s")


@dataclasses.dataclass(frozen=True)
class SkippedSteps:
    """Ends a run of which too many updates were skipped because something was not finite.

    Attributes:
      limit: so many in a row, or every one from the first step on once there are `FIRST_STEPS`.
      largest_share: of the updates of the last `WINDOW` log lines.
      shares: what the last log lines say.
    """

    limit: int
    largest_share: float
    shares: deque[float] = dataclasses.field(default_factory=lambda: deque(maxlen=WINDOW))

    def __call__(self, run: Run) -> None:
        """Raises `DivergedError` if that is so."""
        skipped = int(run.state.skipped)
        self.shares.append(run.log.newest(SKIPPED_SHARE, 0.0))
        share = sum(self.shares) / WINDOW
        if skipped >= self.limit or (skipped == run.step and skipped >= FIRST_STEPS):
            found = f"The last {skipped} updates before step {run.step} were skipped"
        elif share > self.largest_share:
            found = f"{share:.0%} of the updates of the last {WINDOW} log lines before step {run.step} were skipped"
        else:
            return
        raise DivergedError(
            f"{found} because a loss or gradient was not finite. The checkpoints in {run.workdir} are intact: lower "
            "the learning rate, or compute in float32, in a new folder."
        )


def check_last_save(run: Run) -> None:
    """Raises the error that stopped the last save in the background, if any; does not wait."""
    run.checkpoints.check()


def evaluate(run: Run) -> None:
    """Runs the evaluators that are due; logs their pictures, and their numbers in one line."""
    due = [each for each in run.evaluators.values() if run.step % each.every == 0 or run.step == run.num_steps]
    if not due:
        return
    values: dict[str, float] = {}
    for evaluator in due:
        found, pictures = evaluator.run(run.state.inference_params, run.mesh)
        run.log.pictures(run.step, pictures)
        values |= {VALIDATION + name: value for name, value in found.items()}
    if values:
        run.log.scalars(run.step, values)
    run.meter.restart_clock(run.step)


@jax.jit
def _all_finite(params: PyTree) -> Bool[Array, ""]:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all()


def save_checkpoint(run: Run) -> None:
    """Starts saving the state, with the last evaluation's numbers, which decide which checkpoint is the best.

    Raises:
      DivergedError: parameters are not finite; the state is not saved.
    """
    if not _all_finite((run.state.networks, run.state.ema)):
        raise DivergedError(
            f"The parameters of step {run.step} are not finite, so they are not saved. The checkpoints in "
            f"{run.workdir} are intact: lower the learning rate or the weight decay, in a new folder."
        )
    run.checkpoints.save(run.state, run.log.validation)
