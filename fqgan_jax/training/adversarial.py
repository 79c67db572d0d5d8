"""Adversarial training within one step of the tokenizer: the generator's gradient and the discriminator's update.

The discriminator sees the reconstruction once. Its logits give the generator's loss, whose cotangent is pulled back to
the reconstruction, and the fake half of its own loss, whose cotangent is pulled back to its parameters.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from fqgan_jax.losses.adversarial import adversarial_losses, lecam_regularization, r1_penalty
from fqgan_jax.models.applying import apply
from fqgan_jax.training.state import Adversary, apply_gradients

Images = Float[Array, "B H W 3"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversarialTraining:
    """Everything constant on the discriminator's side.

    Attributes:
      module: the discriminator, images to logits.
      tx: its optimizer.
      loss: a row of `adversarial_losses`.
      weight: of both players' adversarial losses.
      start_step: the first step, counted from 1, at which they count.
      discriminator_start_step: the first step at which the discriminator's own counts; 0 is `start_step`.
      ramp_steps: steps over which their weight then grows to `weight`.
      adaptive: balance the generator's loss against the reconstruction's gradient.
      largest_adaptive_weight: upper bound of that balance.
      lecam: weight of LeCAM regularization.
      lecam_decay: of its moving averages of the logits.
      r1: weight of the penalty on the gradient at real images.
    """

    module: nn.Module
    tx: optax.GradientTransformation
    loss: str = "hinge"
    weight: float = 0.5
    start_step: int = 1
    discriminator_start_step: int = 0
    ramp_steps: int = 1
    adaptive: bool = False
    largest_adaptive_weight: float = 1e4
    lecam: float = 0.0
    lecam_decay: float = 0.999
    r1: float = 0.0


class LastLayer(NamedTuple):
    """The decoder's last convolution: `to_pixels(kernel)` applies it to its fixed input."""

    to_pixels: Callable[[Array], Images]
    kernel: Array


class AdversarialResult(NamedTuple):
    """What one step of adversarial training gives.

    Attributes:
      loss: the generator's, weighted.
      cotangent: gradient of `loss` with respect to the reconstruction.
      adversary: after its update.
      metrics: unweighted losses, mean logits and gradient norm by name.
    """

    loss: Float[Array, ""]
    cotangent: Images
    adversary: Adversary
    metrics: dict[str, Array]


def adversarial_step(
    adversary: Adversary,
    images: Images,
    reconstruction: Images,
    *,
    training: AdversarialTraining,
    step: Int[Array, ""],
    other_cotangent: Images,
    last_layer: LastLayer,
) -> AdversarialResult:
    """Returns the generator's adversarial loss with its gradient, and the discriminator after one update.

    Args:
      adversary: before the step.
      images: real ones, in [-1, 1].
      reconstruction: of the same step.
      training: network, optimizer, weights.
      step: number of steps made before this one.
      other_cotangent: gradient of all other losses with respect to the reconstruction, for the adaptive weight.
      last_layer: for the adaptive weight.
    """

    def discriminate(params: PyTree, x: Images) -> Array:
        return apply(training.module, params, x)

    fake_logits, pull_back = jax.vjp(discriminate, adversary.params, reconstruction)
    loss, logits_cotangent = jax.value_and_grad(adversarial_losses[training.loss].generator)(fake_logits)
    _, cotangent = pull_back(logits_cotangent)

    weight, discriminator_weight = (
        training.weight * ramp_weight(step + 1, start_step=start_step, ramp_steps=training.ramp_steps)
        for start_step in (training.start_step, training.discriminator_start_step or training.start_step)
    )
    adaptive = jnp.float32(1)
    if training.adaptive:
        adaptive = adaptive_weight(last_layer, other_cotangent, cotangent, largest=training.largest_adaptive_weight)

    def pull_back_to_params(logits_cotangent: Array) -> PyTree:
        return pull_back(logits_cotangent)[0]

    fake = FakeLogits(logits=fake_logits, pull_back_to_params=pull_back_to_params)
    adversary, metrics = discriminator_step(
        discriminate, adversary, images, fake=fake, training=training, weight=discriminator_weight
    )
    return AdversarialResult(
        loss=weight * adaptive * loss,
        cotangent=weight * adaptive * cotangent,
        adversary=adversary,
        metrics={"adversarial": loss, "adaptive_weight": adaptive, **metrics},
    )


def ramp_weight(step: Int[Array, ""], *, start_step: int, ramp_steps: int) -> Float[Array, ""]:
    """Returns g(t) of step t, the first of which is 1: 0 before `start_step`, then 1, reached over `ramp_steps`."""
    return jnp.clip((step - start_step + 1) / max(ramp_steps, 1), 0, 1).astype(jnp.float32)


def adaptive_weight(
    last_layer: LastLayer, other_cotangent: Images, adversarial_cotangent: Images, *, largest: float
) -> Float[Array, ""]:
    """Ratio of the gradient norms of both losses at the decoder's last kernel (Esser et al. 2021, equation 7).

    The cotangents are those of the last layer's output; no gradient flows through the ratio.
    """
    _, pull_back = jax.vjp(last_layer.to_pixels, last_layer.kernel)

    def norm(cotangent: Images) -> Float[Array, ""]:
        return jnp.linalg.norm(pull_back(cotangent)[0].astype(jnp.float32))

    return jnp.clip(norm(other_cotangent) / (norm(adversarial_cotangent) + 1e-4), 0, largest)


class FakeLogits(NamedTuple):
    """Logits of reconstructions, and how to pull their cotangent back to the discriminator's parameters."""

    logits: Array
    pull_back_to_params: Callable[[Array], PyTree]


def discriminator_step(
    discriminate: Callable[[PyTree, Images], Array],
    adversary: Adversary,
    images: Images,
    *,
    fake: FakeLogits,
    training: AdversarialTraining,
    weight: Float[Array, ""],
) -> tuple[Adversary, dict[str, Array]]:
    """Updates the discriminator on real images and on the logits of reconstructions.

    Its loss and regularizers count with `weight`. Returns the new adversary and, by name, the weighted loss, the mean
    logits and the gradient's norm.
    """

    def weighted_loss(real_logits: Array, fake_logits: Array) -> Float[Array, ""]:
        loss = adversarial_losses[training.loss].discriminator(real_logits, fake_logits)
        return weight * (
            loss + training.lecam * lecam_regularization(real_logits, fake_logits, adversary.average_logits)
        )

    def weighted_penalty(params: PyTree) -> Float[Array, ""]:
        return weight * training.r1 * r1_penalty(lambda x: discriminate(params, x), images)

    real_logits, pull_back_real = jax.vjp(lambda params: discriminate(params, images), adversary.params)
    loss, (real_cotangent, fake_cotangent) = jax.value_and_grad(weighted_loss, (0, 1))(real_logits, fake.logits)
    grads = jax.tree.map(jnp.add, pull_back_real(real_cotangent)[0], fake.pull_back_to_params(fake_cotangent))
    if training.r1:
        penalty, penalty_grads = jax.value_and_grad(weighted_penalty)(adversary.params)
        loss, grads = loss + penalty, jax.tree.map(jnp.add, grads, penalty_grads)

    params, opt_state = apply_gradients(adversary.params, grads, adversary.opt_state, tx=training.tx)
    means = jnp.stack([jnp.mean(real_logits), jnp.mean(fake.logits)])
    average = optax.incremental_update(means, adversary.average_logits, 1 - training.lecam_decay)
    metrics = {
        "discriminator": loss,
        "logits_real": means[0],
        "logits_fake": means[1],
        "discriminator_gradient_norm": optax.tree.norm(grads),
    }
    return Adversary(params=params, opt_state=opt_state, average_logits=average), metrics
