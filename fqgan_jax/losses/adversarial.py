"""Adversarial losses: functions of a discriminator's logits, which are high for real images."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fqgan_jax.config import Registry

Logits = Float[Array, "*s"]


def hinge_loss(real: Logits, fake: Logits) -> Float[Array, ""]:
    """Discriminator's hinge loss, halved: mean relu(1 - real) and mean relu(1 + fake) (Lim & Ye 2017)."""
    return 0.5 * (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake)))


def vanilla_loss(real: Logits, fake: Logits) -> Float[Array, ""]:
    """Discriminator's softplus loss, halved: mean softplus(-real) and mean softplus(fake) (Goodfellow et al. 2014)."""
    return 0.5 * (jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake)))


def non_saturating_loss(real: Logits, fake: Logits) -> Float[Array, ""]:
    """Discriminator's binary cross-entropy with targets 1 for real and 0 for fake: `vanilla_loss` not halved."""
    return 2 * vanilla_loss(real, fake)


def linear_generator_loss(fake: Logits) -> Float[Array, ""]:
    """Generator's loss against hinge and vanilla discriminators: -mean fake."""
    return -jnp.mean(fake)


def non_saturating_generator_loss(fake: Logits) -> Float[Array, ""]:
    """Generator's binary cross-entropy with target 1: mean softplus(-fake) (Goodfellow et al. 2014)."""
    return jnp.mean(jax.nn.softplus(-fake))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversarialLoss:
    """One row: the discriminator's loss of real and fake logits, and the generator's loss of fake logits."""

    discriminator: Callable[[Logits, Logits], Float[Array, ""]]
    generator: Callable[[Logits], Float[Array, ""]]


adversarial_losses: Registry[AdversarialLoss] = Registry("adversarial loss")
adversarial_losses.add("hinge", AdversarialLoss(discriminator=hinge_loss, generator=linear_generator_loss))
adversarial_losses.add("vanilla", AdversarialLoss(discriminator=vanilla_loss, generator=linear_generator_loss))
adversarial_losses.add(
    "non_saturating", AdversarialLoss(discriminator=non_saturating_loss, generator=non_saturating_generator_loss)
)


def lecam_regularization(real: Logits, fake: Logits, average: Float[Array, "2"]) -> Float[Array, ""]:
    """Keeps the logits near the other side's moving average, for small datasets (Tseng et al. 2021, equation 5).

    `average` holds the moving averages of the real and of the fake logits.
    """
    above, below = jax.nn.relu(real - average[1]), jax.nn.relu(average[0] - fake)
    return jnp.mean(above**2) + jnp.mean(below**2)


def r1_penalty(
    discriminate: Callable[[Float[Array, "B H W 3"]], Logits], images: Float[Array, "B H W 3"]
) -> Float[Array, ""]:
    """Half the mean squared norm of the logits' gradient with respect to real images (Mescheder et al. 2018)."""

    def sum_of_logits(x: Array) -> Array:
        return jnp.sum(discriminate(x))

    gradient = jax.grad(sum_of_logits)(images)
    return 0.5 * jnp.mean(jnp.sum(gradient**2, axis=(1, 2, 3)))
