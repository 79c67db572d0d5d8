"""The two players of adversarial training within one step of the tokenizer (paper section 3.5)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from fqgan_jax.losses.adversarial import ADVERSARIAL_LOSSES, lecam_regularization, r1_penalty
from fqgan_jax.training.state import Adversary, update

Images = Float[Array, "B H W 3"]


class AdversarialPass(NamedTuple):
    """Logits of one pass of the discriminator over reconstructions, and how to pull cotangents back through it."""

    logits: Array
    loss: Float[Array, ""]  # the generator's, unweighted
    cotangents: Images  # its gradient with respect to the reconstruction
    pull_back: Callable


def onset(step: Int[Array, ""], start: int, ramp: int) -> Float[Array, ""]:
    """g(t) of step t, the first of which is 1: 0 before `start`, then 1, reached over `ramp` steps."""
    return jnp.clip((step - start + 1) / max(ramp, 1), 0, 1).astype(jnp.float32)


def judge(discriminate: Callable, params: PyTree, reconstruction: Images, loss: str) -> AdversarialPass:
    """The generator's adversarial loss and its gradient; one forward pass serves both players."""
    logits, pull_back = jax.vjp(discriminate, params, reconstruction)
    value, logits_bar = jax.value_and_grad(ADVERSARIAL_LOSSES[loss][1])(logits)
    return AdversarialPass(logits, value, pull_back(logits_bar)[1], pull_back)


def adaptive_weight(
    to_pixels: Callable, kernel: Array, reconstruction_bar: Images, adversarial_bar: Images, largest: float
) -> Float[Array, ""]:
    """Ratio of the gradient norms of both losses at the decoder's last kernel (Esser et al. 2021, equation 7).

    `to_pixels(kernel)` is the last convolution on its fixed input; the cotangents are those of its output.
    """
    _, pull_back = jax.vjp(to_pixels, kernel)
    norms = [jnp.linalg.norm(pull_back(bar)[0].astype(jnp.float32)) for bar in (reconstruction_bar, adversarial_bar)]
    return jnp.clip(norms[0] / (norms[1] + 1e-4), 0, largest)


def discriminator_step(
    discriminate: Callable,
    adversary: Adversary,
    images: Images,
    judged: AdversarialPass,
    strength: Float[Array, ""],
    optimizer: optax.GradientTransformation,
    config,
) -> tuple[Adversary, dict[str, Array]]:
    """One update of the discriminator on real images and on the reconstructions that were judged.

    Its loss times `strength`; the regularizations of the config count from the same step on. Returns the new adversary
    and the loss, the mean logits and the gradient's norm by name.
    """
    average = adversary.average_logits

    def loss_of_logits(real, fake):
        loss = ADVERSARIAL_LOSSES[config.loss][0](real, fake)
        return strength * (loss + config.lecam * lecam_regularization(real, fake, average[0], average[1]))

    real, pull_back_real = jax.vjp(lambda params: discriminate(params, images), adversary.params)
    loss, (real_bar, fake_bar) = jax.value_and_grad(loss_of_logits, (0, 1))(real, judged.logits)
    gradients = jax.tree.map(jnp.add, pull_back_real(real_bar)[0], judged.pull_back(fake_bar)[0])
    if config.r1:
        penalty = lambda params: strength * config.r1 * r1_penalty(lambda x: discriminate(params, x), images)
        value, more = jax.value_and_grad(penalty)(adversary.params)
        loss, gradients = loss + value, jax.tree.map(jnp.add, gradients, more)
    params, optimizer_state = update(adversary.params, gradients, optimizer, adversary.optimizer)
    means = jnp.stack([jnp.mean(real), jnp.mean(judged.logits)])
    average = optax.incremental_update(means, average, 1 - config.lecam_decay)
    metrics = {
        "discriminator": loss,
        "logits_real": means[0],
        "logits_fake": means[1],
        "discriminator_gradient_norm": optax.tree.norm(gradients),
    }
    return Adversary(params, optimizer_state, average), metrics
