"""The tokenizer's training step: one forward pass, both players' updates (paper section 3.5). Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from fqgan_jax.losses.tokenizer_losses import l2_loss
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.models.quantizers import QuantizerOutput
from fqgan_jax.training.adversarial import adaptive_weight, discriminator_step, judge, onset
from fqgan_jax.training.objective import Terms, feature_terms, quantization_terms, weighted_sum
from fqgan_jax.training.reseeding import reseed
from fqgan_jax.training.state import TrainState, next_state, update, updated_average

Images = Float[Array, "B H W 3"]


class Players(NamedTuple):
    """The networks and their optimizers.

    Attributes:
      tokenizer, discriminator: modules; the latter may be None.
      optimizer, discriminator_optimizer: of their parameters.
      perceptual: `perceptual(params, reconstruction, images) -> [B]`, or None.
    """

    tokenizer: FQGAN
    optimizer: optax.GradientTransformation
    discriminator: nn.Module | None = None
    discriminator_optimizer: optax.GradientTransformation | None = None
    perceptual: Callable | None = None


class ForwardPass(NamedTuple):
    """What the tokenizer's forward pass leaves beside reconstruction and loss."""

    terms: Terms
    quantized: QuantizerOutput
    decoder_features: Float[Array, "B H W C"]


def in_parts(function: Callable, parts: int) -> Callable:
    """The same function of a batch, computed a part at a time, forward and backward.

    Exact for functions of each example on its own. Every part takes an equal share of each device's examples.
    """
    if parts == 1:
        return function
    cut = lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)
    join = lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:])

    def mapped(*arguments):
        outputs = jax.lax.map(jax.checkpoint(lambda part: function(*part)), jax.tree.map(cut, arguments))
        return jax.tree.map(join, outputs)

    return mapped


def tokenizer_step(
    state: TrainState,
    frozen: Mapping[str, PyTree],
    images: Images,
    targets: Sequence[Float[Array, "B W"] | None],
    players: Players,
    config: Any,
) -> tuple[TrainState, dict[str, Array]]:
    """One update of the tokenizer and of its discriminator; both gradients see the same state and reconstruction.

    Args:
      state: see `TrainState`; its step counts from 0.
      frozen: parameters of frozen networks: "perceptual".
      images: in [-1, 1].
      targets: the teachers' features per sub-codebook.
      players: networks and optimizers.
      config: the fields `loss`, `adversarial`, `optimizer.ema_decay`, `train.accumulate`, `reseed_after`, `seed` of a
        tokenizer config.

    Returns the new state and every term by name, unweighted, with codes [B, h, w, K].
    """
    weights, adversarial = config.loss, config.adversarial
    parts = config.train.accumulate
    (reconstruction, other), pull_back, forward = jax.vjp(
        lambda params: _forward(players.tokenizer, params, images, targets, weights, parts), state.params, has_aux=True
    )
    pixel_loss, terms, pixel_bar = _pixel_losses(players, frozen, reconstruction, images, weights, parts)
    total, metrics, adversary = pixel_loss + other, terms | forward.terms, state.adversary
    if adversary is not None:
        discriminate = lambda params, x: players.discriminator.apply({"params": params}, x)
        judged = judge(discriminate, adversary.params, reconstruction, adversarial.loss)
        strength = adversarial.weight * onset(state.step + 1, adversarial.start, adversarial.ramp)
        balance = jnp.float32(1)
        if adversarial.adaptive:
            to_pixels, kernel = _last_convolution(players.tokenizer, state.params, forward.decoder_features)
            balance = adaptive_weight(to_pixels, kernel, pixel_bar, judged.cotangents, adversarial.adaptive_largest)
        total = total + strength * balance * judged.loss
        pixel_bar = pixel_bar + strength * balance * judged.cotangents
        adversary, theirs = discriminator_step(
            discriminate, adversary, images, judged, strength, players.discriminator_optimizer, adversarial
        )
        metrics |= {"adversarial": judged.loss, "adaptive_weight": balance, **theirs}
    (gradients,) = pull_back((pixel_bar, jnp.float32(1)))
    norm = optax.tree.norm(gradients)

    params, optimizer_state = update(state.params, gradients, players.optimizer, state.optimizer)
    idle = state.idle
    if idle is not None:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        params, idle = reseed(key, params, idle, forward.quantized, config.reseed_after)
    new = state.replace(
        params=params,
        optimizer=optimizer_state,
        ema=updated_average(state.ema, params, config.optimizer.ema_decay),
        adversary=adversary,
        idle=idle,
    )
    norms = norm + metrics.get("discriminator_gradient_norm", 0)
    finite = jnp.isfinite(total) & jnp.isfinite(norms)
    metrics |= {"loss": total, "gradient_norm": norm, "codes": forward.quantized.codes}
    return next_state(finite, state, new), metrics


def _forward(
    tokenizer: FQGAN, params: PyTree, images: Images, targets: Sequence, weights: Mapping[str, float], parts: int
) -> tuple[tuple[Images, Float[Array, ""]], ForwardPass]:
    """Reconstruction, and the weighted sum of all that is no loss on it; only these two carry gradients."""
    apply = lambda method, *arguments: tokenizer.apply({"params": params}, *arguments, method=method)

    def decode(quantized):
        features = apply("decoder_features", quantized)
        return apply("to_pixels", features), features, apply("predict_features", quantized)

    latents = in_parts(lambda x: apply("latents", x), parts)(images)
    quantized = apply("quantize", latents)
    reconstruction, features, predicted = in_parts(decode, parts)(quantized.quantized)
    terms = quantization_terms(quantized) | feature_terms(predicted, targets, weights.feature_group)
    return (reconstruction, weighted_sum(terms, weights)), ForwardPass(terms, quantized, features)


def _pixel_losses(
    players: Players, frozen: Mapping, reconstruction: Images, images: Images, weights: Mapping[str, float], parts: int
) -> tuple[Float[Array, ""], Terms, Images]:
    """Weighted L2 and perceptual loss, the terms, and the gradient with respect to the reconstruction."""

    def loss(reconstruction):
        terms = {"reconstruction": l2_loss(reconstruction, images)}
        if players.perceptual is not None:
            distance = in_parts(lambda *pair: players.perceptual(frozen["perceptual"], *pair), parts)
            terms["perceptual"] = jnp.mean(distance(reconstruction, images))
        return weighted_sum(terms, weights), terms

    (value, terms), cotangents = jax.value_and_grad(loss, has_aux=True)(reconstruction)
    return value, terms, cotangents


def _last_convolution(tokenizer: FQGAN, params: PyTree, features: Float[Array, "B H W C"]) -> tuple[Callable, Array]:
    """The decoder's last convolution as a function of its kernel, and that kernel."""
    last = params["decoder"]["conv_out"]

    def to_pixels(kernel):
        decoder = {"conv_out": {"kernel": kernel, "bias": last["bias"]}}
        return tokenizer.apply({"params": {"decoder": decoder}}, features, method="to_pixels")

    return to_pixels, last["kernel"]
