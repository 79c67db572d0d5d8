"""What a training run carries from step to step."""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree


@flax.struct.dataclass
class TrainState:
    """Parameters and everything that belongs to them. `ema` is None where no moving average is kept."""

    step: Int[Array, ""]
    params: PyTree
    optimizer: optax.OptState
    ema: PyTree | None

    @property
    def inference_params(self) -> PyTree:
        """The moving average where there is one."""
        return self.params if self.ema is None else self.ema


def create_state(params: PyTree, optimizer: optax.GradientTransformation, ema_decay: float) -> TrainState:
    """State before the first step."""
    # A copy, because both are donated to the step.
    ema = jax.tree.map(jnp.copy, params) if ema_decay else None
    return TrainState(jnp.int32(0), params, optimizer.init(params), ema)


def apply_gradients(
    state: TrainState, gradients: PyTree, optimizer: optax.GradientTransformation, ema_decay: float
) -> TrainState:
    """One optimizer update, and of the moving average."""
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema is not None:
        ema = optax.incremental_update(params, ema, 1 - ema_decay)
    return TrainState(state.step + 1, params, optimizer_state, ema)
