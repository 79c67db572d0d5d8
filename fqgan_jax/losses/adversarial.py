"""Losses of the two players of adversarial training, of a discriminator's logits (high for real images)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

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


# By the names that configs use: the discriminator's loss and the generator's.
ADVERSARIAL_LOSSES: dict[str, tuple[Callable, Callable]] = {
    "hinge": (hinge_loss, linear_generator_loss),
    "vanilla": (vanilla_loss, linear_generator_loss),
    "non_saturating": (non_saturating_loss, non_saturating_generator_loss),
}


def lecam_regularization(
    real: Logits, fake: Logits, average_real: Float[Array, ""], average_fake: Float[Array, ""]
) -> Float[Array, ""]:
    """Holds the logits near the other side's moving average; for little data (Tseng et al. 2021, equation 5)."""
    above, below = jax.nn.relu(real - average_fake), jax.nn.relu(average_real - fake)
    return jnp.mean(above**2) + jnp.mean(below**2)


def r1_penalty(
    discriminate: Callable[[Float[Array, "B H W 3"]], Logits], images: Float[Array, "B H W 3"]
) -> Float[Array, ""]:
    """Mean squared norm of the logits' gradient with respect to real images (Mescheder et al. 2018), halved."""
    gradient = jax.grad(lambda x: jnp.sum(discriminate(x)))(images)
    return 0.5 * jnp.mean(jnp.sum(gradient**2, axis=(1, 2, 3)))
