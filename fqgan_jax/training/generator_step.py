"""The generator's training step (paper section 3.4). Pure.

codes, labels ── some labels become the null class ──▶ FAR ──▶ logits ── losses.generator ──▶ loss ──▶ grads
      ╰── with order annealing, some examples' positions are permuted ──╯
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from fqgan_jax import losses
from fqgan_jax.models.applying import apply
from fqgan_jax.models.far import FAR
from fqgan_jax.training.optimizers import without_fixed_gradients
from fqgan_jax.training.state import TrainState, apply_gradients, next_state, updated_ema


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorTraining:
    """Everything constant that a step depends on.

    Attributes:
      module: the generator.
      tx: its optimizer.
      loss_weights: weights of the rows of `losses.generator`, by name.
      class_dropout: share of labels that the null class replaces.
      order_annealing: steps between which the share of examples whose positions are permuted falls from 1 to 0.
      ema_decay: of the moving average of the parameters; 0 keeps none.
      fixed: patterns of parameters that stay as they are, see `is_fixed`.
      seed: of the dropout.
    """

    module: FAR
    tx: optax.GradientTransformation
    loss_weights: Mapping[str, float]
    class_dropout: float = 0.1
    order_annealing: tuple[int, int] | None = None
    ema_decay: float = 0.0
    fixed: Sequence[str] = ()
    seed: int = 0


def generator_step(
    state: TrainState, batch: Mapping[str, Array], *, training: GeneratorTraining
) -> tuple[TrainState, dict[str, Array]]:
    """Updates the generator.

    Args:
      state: before the step; the dropout is a function of the seed and of `state.step`.
      batch: "codes" [B, h, w, K] and "label" [B].
      training: network, optimizer, weights.

    Returns:
      The new state; and by name every loss, unweighted, the total and the gradient norm.
    """
    module = training.module
    B, h, w, K = batch["codes"].shape
    codes = batch["codes"].reshape(B, h * w, K)
    dropout_key, label_key = jax.random.split(jax.random.fold_in(jax.random.key(training.seed), state.step))
    dropped = jax.random.bernoulli(label_key, training.class_dropout, (B,))
    labels = jnp.where(dropped, module.num_classes, batch["label"])
    order = None
    if training.order_annealing is not None:
        order = random_order(label_key, (B, h * w), share=permuted_share(state.step, training.order_annealing))
        codes = jnp.take_along_axis(codes, order[..., None], axis=1)

    def objective(params: PyTree) -> tuple[Float[Array, ""], dict[str, Array]]:
        params = without_fixed_gradients(params, patterns=training.fixed)
        logits = apply(module, params, codes, labels, order=order, train=True, rngs={"dropout": dropout_key})
        return losses.objective(
            losses.generator,
            training.loss_weights,
            num_codebooks=module.num_codebooks,
            over_codebooks=jnp.mean,
            options={},
            logits=logits,
            codes=codes,
        )

    (total, metrics), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
    params, opt_state = apply_gradients(state.params, grads, state.opt_state, tx=training.tx)
    ema = updated_ema(state.ema, params, decay=training.ema_decay)
    norm = optax.tree.norm(grads)
    new = dataclasses.replace(state, params=params, opt_state=opt_state, ema=ema)
    metrics = metrics | {"loss": total, "gradient_norm": norm}
    return next_state(state, new, finite=jnp.isfinite(total + norm)), metrics


def permuted_share(step: Int[Array, ""], annealing: tuple[int, int]) -> Float[Array, ""]:
    """Returns the share of examples that are permuted at a step: 1 up to the first of two steps, 0 from the second on.

    (Yu et al. 2024, arXiv 2411.00776.)
    """
    start, stop = annealing
    return jnp.clip((stop - step) / max(1, stop - start), 0, 1)


def random_order(key: Key[Array, ""], shape: tuple[int, int], *, share: Float[Array, ""]) -> Int[Array, "B T"]:
    """Returns the order of each example's positions: a random one with probability `share`, else row by row."""
    B, T = shape
    keys = jax.random.split(jax.random.fold_in(key, 1), B + 1)
    permuted = jax.random.bernoulli(keys[0], share, (B, 1))
    orders = jax.vmap(lambda key: jax.random.permutation(key, T))(keys[1:])
    return jnp.where(permuted, orders, jnp.arange(T))
