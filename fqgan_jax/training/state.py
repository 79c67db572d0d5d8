"""What a training run carries from step to step."""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree


@flax.struct.dataclass
class Adversary:
    """The discriminator of a run: its parameters, its optimizer, and the moving averages of its logits for LeCAM."""

    params: PyTree
    optimizer: optax.OptState
    average_logits: Float[Array, "2"]  # real, fake


@flax.struct.dataclass
class TrainState:
    """Parameters and everything that belongs to them.

    Attributes:
      step: how many were made, skipped ones included.
      skipped: how many of the last steps in a row were skipped because something was not finite.
      ema: moving average of the parameters, None where none is kept.
      adversary: None where the task has none.
      idle: per codebook entry the steps since it was last used, None where entries are not re-seeded.
    """

    step: Int[Array, ""]
    params: PyTree
    optimizer: optax.OptState
    ema: PyTree | None
    skipped: Int[Array, ""]
    adversary: Adversary | None = None
    idle: Int[Array, "K N"] | None = None

    @property
    def inference_params(self) -> PyTree:
        """The moving average where there is one."""
        return self.params if self.ema is None else self.ema


def create_state(
    params: PyTree,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    adversary: Adversary | None = None,
    idle: Int[Array, "K N"] | None = None,
) -> TrainState:
    """State before the first step."""
    # A copy, because both are donated to the step.
    ema = jax.tree.map(jnp.copy, params) if ema_decay else None
    return TrainState(jnp.int32(0), params, optimizer.init(params), ema, jnp.int32(0), adversary, idle)


def update(
    params: PyTree, gradients: PyTree, optimizer: optax.GradientTransformation, state: optax.OptState
) -> tuple[PyTree, optax.OptState]:
    """New parameters and the new state of their optimizer."""
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state


def updated_average(ema: PyTree | None, params: PyTree, decay: float) -> PyTree | None:
    """The moving average one step later, where one is kept."""
    return None if ema is None else optax.incremental_update(params, ema, 1 - decay)


def next_state(finite: Bool[Array, ""], old: TrainState, new: TrainState) -> TrainState:
    """The new state, or where something was not finite the old one with that counted; the step counts on in both."""
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, old)
    return kept.replace(step=old.step + 1, skipped=jnp.where(finite, 0, old.skipped + 1))
