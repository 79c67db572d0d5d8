"""Optimizers and learning-rate schedules."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from functools import partial

import jax
import optax
from jaxtyping import PyTree

from fqgan_jax.config import Registry
from fqgan_jax.config.registry import nearest
from fqgan_jax.errors import check
from fqgan_jax.models.stacking import axes_within_layer


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW's hyperparameters and the learning rate over time.

    Attributes:
      learning_rate: peak.
      schedule: a row of `schedules`, which follows the linear warm-up.
      warmup_steps: length of the warm-up.
      total_steps: steps of the whole run.
      floor: share of the peak at which a falling schedule ends.
      decay_steps: steps over which "stable_decay" falls at the end.
      b1, b2: decay rates of the moments.
      weight_decay: applied to matrices only.
      clip: largest global gradient norm.
    """

    learning_rate: float
    schedule: str = "constant"
    warmup_steps: int = 0
    total_steps: int
    floor: float = 0.0
    decay_steps: int = 0
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
    """Half a cosine from the peak to the floor at the last step."""
    steps = max(settings.total_steps - settings.warmup_steps, 1)
    return optax.cosine_decay_schedule(settings.learning_rate, steps, alpha=settings.floor)


@schedules("linear", depends_on_total_steps=True)
def linear(settings: OptimizerSettings) -> optax.Schedule:
    """A straight line from the peak to the floor at the last step."""
    steps = max(settings.total_steps - settings.warmup_steps, 1)
    return optax.linear_schedule(settings.learning_rate, settings.floor * settings.learning_rate, steps)


@schedules("stable_decay", depends_on_total_steps=True)
def stable_decay(settings: OptimizerSettings) -> optax.Schedule:
    """The peak, and over the last `decay_steps` a straight line to the floor (warm-up, stable, decay)."""
    stable = max(settings.total_steps - settings.warmup_steps - settings.decay_steps, 0)
    return optax.linear_schedule(
        settings.learning_rate,
        settings.floor * settings.learning_rate,
        max(settings.decay_steps, 1),
        transition_begin=stable,
    )


def learning_rate_schedule(settings: OptimizerSettings) -> optax.Schedule:
    """The learning rate as a function of the number of updates made so far."""
    after_warmup = schedules[settings.schedule].function(settings)
    if not settings.warmup_steps:
        return after_warmup
    warmup = optax.linear_schedule(0.0, settings.learning_rate, settings.warmup_steps)
    return optax.join_schedules([warmup, after_warmup], [settings.warmup_steps])


def make_tx(settings: OptimizerSettings, fixed: Sequence[str] = ()) -> optax.GradientTransformation:
    """AdamW (Adam if the decay is 0) after clipping the global gradient norm.

    Weight decay applies to matrices: parameters with two or more axes in their own layer. Biases and the scales of
    norms are not decayed, however many layers are stacked in one array.

    Args:
      settings: hyperparameters.
      fixed: patterns of parameters that stay as they are and have no state, see `is_fixed`.
    """
    tx = optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.adamw(
            learning_rate_schedule(settings),
            settings.b1,
            settings.b2,
            weight_decay=settings.weight_decay,
            mask=is_decayed,
        ),
    )
    if not fixed:
        return tx
    return optax.partition({True: optax.set_to_zero(), False: tx}, partial(is_fixed, patterns=fixed))


def is_fixed(params: PyTree, *, patterns: Sequence[str]) -> PyTree:
    """For each parameter, whether the beginning of its path matches one of the patterns.

    Args:
      params: the parameters.
      patterns: regular expressions of whole parts of paths: "encoder", "decoder/level[01]".
    """

    def matches(path, _) -> bool:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return any(re.match(f"(?:{pattern})(?:/|$)", name) for pattern in patterns)

    return jax.tree_util.tree_map_with_path(matches, params)


def without_fixed_gradients(params: PyTree, *, patterns: Sequence[str]) -> PyTree:
    """Returns the parameters, without gradients to the fixed ones, so that none is computed for them."""
    return jax.tree.map(
        lambda leaf, fixed: jax.lax.stop_gradient(leaf) if fixed else leaf,
        params,
        is_fixed(params, patterns=patterns),
    )


def is_decayed(params: PyTree) -> PyTree:
    """For each parameter, whether weight decay applies to it."""

    def is_matrix(path, leaf) -> bool:
        return axes_within_layer(jax.tree_util.keystr(path, simple=True, separator="/"), leaf.ndim) > 1

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def check_fixed(params: PyTree, patterns: Sequence[str]) -> None:
    """Raises `UserError` if a pattern of `train.freeze` matches no parameter, or all patterns match every one."""
    modules = sorted(params)
    for pattern in patterns:
        check(
            any(jax.tree.leaves(is_fixed(params, patterns=[pattern]))),
            f"train.freeze names {pattern!r}, with which no parameter's path begins{nearest(pattern, modules)} "
            "parameters.txt in a run's work folder lists all paths.",
        )
    check(
        not all(jax.tree.leaves(is_fixed(params, patterns=patterns))),
        f"train.freeze={tuple(patterns)} leaves nothing to train: leave out a pattern.",
    )
