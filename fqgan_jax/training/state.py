"""The state of a training run."""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree


@flax.struct.dataclass
class Adversary:
    """The discriminator of a run.

    Attributes:
      params: parameters of the discriminator.
      opt_state: state of its optimizer.
      average_logits: moving averages of its logits of real and of fake images, for LeCAM.
    """

    params: PyTree
    opt_state: optax.OptState
    average_logits: Float[Array, "2"]


@flax.struct.dataclass
class TrainState:
    """The whole state of a training run.

    Attributes:
      step: number of steps made, skipped ones included.
      params: parameters of the model.
      opt_state: state of its optimizer.
      ema: moving average of the parameters; None if the run keeps none.
      skipped: how many of the last steps in a row were skipped because something was not finite.
      adversary: the discriminator; None if the task has none.
      idle: per codebook entry, the steps since it was last used; None if entries are not re-seeded.
    """

    step: Int[Array, ""]
    params: PyTree
    opt_state: optax.OptState
    ema: PyTree | None
    skipped: Int[Array, ""]
    adversary: Adversary | None = None
    idle: Int[Array, "K N"] | None = None

    @property
    def networks(self) -> dict[str, PyTree]:
        """The parameters of the model and, if there is one, of the discriminator."""
        adversary = self.adversary
        return {"model": self.params} | ({} if adversary is None else {"discriminator": adversary.params})

    @property
    def inference_params(self) -> PyTree:
        """The moving average if there is one, else the parameters."""
        return self.params if self.ema is None else self.ema


def create_state(
    params: PyTree,
    tx: optax.GradientTransformation,
    *,
    with_ema: bool,
    adversary: Adversary | None = None,
    idle: Int[Array, "K N"] | None = None,
) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(
        step=jnp.int32(0),
        params=params,
        opt_state=tx.init(params),
        # A copy, because both are donated to the step.
        ema=jax.tree.map(jnp.copy, params) if with_ema else None,
        skipped=jnp.int32(0),
        adversary=adversary,
        idle=idle,
    )


def apply_gradients(
    params: PyTree, grads: PyTree, opt_state: optax.OptState, *, tx: optax.GradientTransformation
) -> tuple[PyTree, optax.OptState]:
    """Returns the new parameters and the new state of their optimizer."""
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def updated_ema(ema: PyTree | None, params: PyTree, *, decay: float) -> PyTree | None:
    """Returns the moving average one step later; None if the run keeps none."""
    return None if ema is None else optax.incremental_update(params, ema, 1 - decay)


def next_state(old: TrainState, new: TrainState, *, finite: Bool[Array, ""]) -> TrainState:
    """Returns the new state, or the old one with one more skipped step if something was not finite.

    The step counts on in both cases.
    """
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, old)
    return kept.replace(step=old.step + 1, skipped=jnp.where(finite, 0, old.skipped + 1))
