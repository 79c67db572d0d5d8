"""Optimizers and learning-rate schedules."""

import dataclasses
from collections.abc import Callable

import jax
import optax
from jaxtyping import PyTree

from fqgan_jax.config import Registry
from fqgan_jax.models.stacking import axes_within_layer


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW's hyperparameters and the learning rate over time.

    Attributes:
      learning_rate: peak.
      schedule: a row of `schedules`, which follows the linear warm-up.
      warmup_steps: length of the warm-up.
      total_steps: steps of the whole run.
      b1, b2: decay rates of the moments.
      weight_decay: applied to matrices only.
      clip: largest global gradient norm.
    """

    learning_rate: float
    schedule: str = "constant"
    warmup_steps: int = 0
    total_steps: int
    b1: float = 0.9
    b2: float = 0.95
    weight_decay: float = 0.0
    clip: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """One row: a function of the settings that gives the learning rate after the warm-up.

    `depends_on_total_steps` tells that a run of another length has other learning rates from the start.
    """

    function: Callable[[OptimizerSettings], optax.Schedule]
    depends_on_total_steps: bool = False


def _row(function: Callable, **attributes) -> Schedule:
    return Schedule(function=function, **attributes)


schedules: Registry[Schedule] = Registry("learning-rate schedule", _row)


@schedules("constant")
def constant(settings: OptimizerSettings) -> optax.Schedule:
    """The peak learning rate."""
    return optax.constant_schedule(settings.learning_rate)


@schedules("cosine", depends_on_total_steps=True)
def cosine(settings: OptimizerSettings) -> optax.Schedule:
    """Half a cosine from the peak to zero at the last step."""
    return optax.cosine_decay_schedule(settings.learning_rate, max(settings.total_steps - settings.warmup_steps, 1))


def learning_rate_schedule(settings: OptimizerSettings) -> optax.Schedule:
    """The learning rate as a function of the number of updates made so far."""
    after_warmup = schedules[settings.schedule].function(settings)
    if not settings.warmup_steps:
        return after_warmup
    warmup = optax.linear_schedule(0.0, settings.learning_rate, settings.warmup_steps)
    return optax.join_schedules([warmup, after_warmup], [settings.warmup_steps])


def make_tx(settings: OptimizerSettings) -> optax.GradientTransformation:
    """AdamW (Adam if the decay is 0) after clipping the global gradient norm.

    Weight decay applies to matrices: parameters with two or more axes in their own layer. Biases and the scales of
    norms are not decayed, however many layers are stacked in one array.
    """
    return optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.adamw(
            learning_rate_schedule(settings),
            settings.b1,
            settings.b2,
            weight_decay=settings.weight_decay,
            mask=is_decayed,
        ),
    )


def is_decayed(params: PyTree) -> PyTree:
    """For each parameter, whether weight decay applies to it."""

    def is_matrix(path, leaf) -> bool:
        return axes_within_layer(jax.tree_util.keystr(path, simple=True, separator="/"), leaf.ndim) > 1

    return jax.tree_util.tree_map_with_path(is_matrix, params)
