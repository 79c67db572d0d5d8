"""The tokenizer's training step (paper section 3.5). Pure.

One forward pass, one gradient of all losses with respect to its outputs, one backward pass:

    images ── encoder, heads ──▶ latents ── quantizer ──▶ quantized ── decoder ──▶ reconstruction ─▶ discriminator
                                    │                      │  │  codes                │                    │
                                    │ codebook             │  └─ feature heads        │ reconstruction     │ adversarial
                                    │ commitment           │         │ feature        │ perceptual         │
                                    │ entropy              │ disentanglement          │                    │
                                    ▼                      ▼         ▼                ▼                    ▼
    params ◀─────────────────── cotangents of latents, entries, quantized, predictions, reconstruction

    1. `jax.vjp` of `_forward` gives the outputs (`TokenizerOutputs`) and their pull-back to the parameters.
    2. `losses.objective` weighs every row of `losses.tokenizer`; its gradient gives a cotangent for each output.
    3. `adversarial_step` adds the generator's adversarial cotangent of the reconstruction and updates the discriminator
       from the same reconstruction.
    4. The cotangents are pulled back once, and the optimizer makes its update.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from fqgan_jax import losses
from fqgan_jax.models.applying import apply
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.training.adversarial import AdversarialTraining, LastLayer, adversarial_step
from fqgan_jax.training.nested import kept_codebooks
from fqgan_jax.training.optimizers import without_fixed_gradients
from fqgan_jax.training.perturbation import Perturbation, replaced
from fqgan_jax.training.reseeding import reseed
from fqgan_jax.training.state import TrainState, apply_gradients, next_state, updated_ema

Images = Float[Array, "B H W 3"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerTraining:
    """Everything constant that a step depends on.

    Attributes:
      module: the tokenizer.
      tx: its optimizer.
      loss_weights: weights of the rows of `losses.tokenizer`, by name.
      loss_options: the other fields of the config's `loss` section.
      perceptual_distance: `(params, reconstruction, images) -> [B]`; None if the perceptual loss has no weight.
      adversarial: the discriminator's side; None trains without one.
      ema_decay: of the moving average of the parameters; 0 keeps none.
      accumulate: parts in which a batch passes through the networks; the result does not depend on it.
      reseed_after: steps after which unused codebook entries move to latents of the batch; 0 never moves them.
      perturbation: codes that are replaced before decoding; None replaces none.
      fixed: patterns of parameters that stay as they are, see `is_fixed`.
      seed: of everything random in a step.
    """

    module: FQGAN
    tx: optax.GradientTransformation
    loss_weights: Mapping[str, float]
    loss_options: Mapping[str, Any]
    perceptual_distance: Callable[[PyTree, Images, Images], Float[Array, " B"]] | None = None
    adversarial: AdversarialTraining | None = None
    ema_decay: float = 0.0
    accumulate: int = 1
    reseed_after: int = 0
    perturbation: Perturbation | None = None
    fixed: Sequence[str] = ()
    seed: int = 0


@flax.struct.dataclass
class TokenizerBatch:
    """Images in [-1, 1] and, per sub-codebook, its teacher's features of them (None without a teacher)."""

    images: Images
    targets: Sequence[Float[Array, "B W"] | None]


@flax.struct.dataclass
class TokenizerOutputs:
    """What the forward pass produces and losses may depend on; see `QuantizerOutput` for the quantizer's part.

    Attributes:
      predictions: per sub-codebook, the predicted feature of its teacher; None without a teacher.
    """

    reconstruction: Images
    latents: Float[Array, "B h w K d"]
    quantized: Float[Array, "B h w K d"]
    entries: Float[Array, "B h w K d"] | None
    soft_entries: Float[Array, "B h w K d"] | None
    token_entropy: Float[Array, " K"] | None
    mean_probability: Float[Array, "K *groups N"] | None
    predictions: tuple[Float[Array, "B W"] | None, ...]

    def by_name(self) -> dict[str, Any]:
        """The fields as keywords for the losses."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


@flax.struct.dataclass
class Constants:
    """What the forward pass leaves beside its outputs; no loss sends a gradient through it.

    Attributes:
      kept: 1 for the sub-codebooks that this step keeps, 0 for those that it leaves out; None keeps all (the paper).
    """

    codes: Int[Array, "B h w K"]
    decoder_features: Float[Array, "B H W C"]
    kept: Float[Array, " K"] | None


def tokenizer_step(
    state: TrainState, frozen: Mapping[str, PyTree], batch: TokenizerBatch, *, training: TokenizerTraining
) -> tuple[TrainState, dict[str, Array]]:
    """Updates the tokenizer and its discriminator; both gradients see the same state and the same reconstruction.

    Args:
      state: before the step.
      frozen: parameters of frozen networks; "perceptual" if the perceptual loss has a weight.
      batch: images and targets.
      training: networks, optimizers, weights.

    Returns:
      The new state; and by name every loss, unweighted, the gradient norms, the codes [B, h, w, K], and the kept
      sub-codebooks [K] of nested training.
    """
    keys = _StepKeys.of(jax.random.fold_in(jax.random.key(training.seed), state.step))
    outputs, pull_back, constants = jax.vjp(
        partial(_forward, training=training, images=batch.images, keys=keys), state.params, has_aux=True
    )
    objective = partial(_objective, training=training, frozen=frozen, batch=batch, constants=constants)
    (total, metrics), cotangents = jax.value_and_grad(objective, has_aux=True)(outputs)

    adversary = state.adversary
    if training.adversarial is not None:
        assert adversary is not None
        played = adversarial_step(
            adversary,
            batch.images,
            outputs.reconstruction,
            training=training.adversarial,
            step=state.step,
            other_cotangent=cotangents.reconstruction,
            last_layer=_last_layer(training.module, state.params, constants.decoder_features),
        )
        adversary, total, metrics = played.adversary, total + played.loss, metrics | played.metrics
        cotangents = cotangents.replace(reconstruction=cotangents.reconstruction + played.cotangent)

    (grads,) = pull_back(cotangents)
    params, opt_state = apply_gradients(state.params, grads, state.opt_state, tx=training.tx)
    idle = state.idle
    if training.reseed_after:
        assert idle is not None
        params, idle = reseed(
            keys.reseeding,
            params,
            idle,
            codes=constants.codes,
            latents=outputs.latents,
            kept=constants.kept,
            after=training.reseed_after,
        )
    ema = updated_ema(state.ema, params, decay=training.ema_decay)
    new = dataclasses.replace(state, params=params, opt_state=opt_state, ema=ema, adversary=adversary, idle=idle)

    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(total + norm + metrics.get("discriminator_gradient_norm", 0.0))
    metrics = metrics | {"loss": total, "gradient_norm": norm, "codes": constants.codes}
    if constants.kept is not None:
        metrics["kept"] = constants.kept
    return next_state(state, new, finite=finite), metrics


class _StepKeys(NamedTuple):
    """Random keys of one step."""

    reseeding: Key[Array, ""]
    kept: Key[Array, ""]
    near: Key[Array, ""]
    replaced: Key[Array, ""]

    @classmethod
    def of(cls, key: Key[Array, ""]) -> "_StepKeys":
        # Re-seeding keeps the key that it had before steps drew anything else.
        return cls(key, *(jax.random.fold_in(key, use) for use in (1, 2, 3)))


def _forward(
    params: PyTree, *, training: TokenizerTraining, images: Images, keys: _StepKeys
) -> tuple[TokenizerOutputs, Constants]:
    """The tokenizer's forward pass; the networks see a part of the batch at a time, the quantizer all of it."""
    module, perturbation = training.module, training.perturbation
    params = without_fixed_gradients(params, patterns=training.fixed)

    def call(method: str, *inputs: Array, **options: int) -> Any:
        return apply(module, params, *inputs, method=method, **options)

    def decode(quantized: Array) -> tuple[Images, Array, tuple]:
        features = call("decoder_features", quantized)
        return call("to_pixels", features), features, call("predict_features", quantized)

    latents = in_parts(partial(call, "latents"), training.accumulate)(images)
    found = call("quantize", latents)
    quantized = found.quantized
    if perturbation is not None:
        near = call("near_entries", keys.near, found.latents, nearest=perturbation.nearest)
        quantized = replaced(keys.replaced, quantized, near, perturbation=perturbation)
    kept = kept_codebooks(keys.kept, module.nested) if module.nested else None
    if kept is not None:
        quantized = quantized * kept[:, None]
    reconstruction, features, predictions = in_parts(decode, training.accumulate)(quantized)
    outputs = TokenizerOutputs(
        reconstruction=reconstruction,
        latents=found.latents,
        quantized=quantized,
        entries=found.entries,
        soft_entries=found.soft_entries,
        token_entropy=found.token_entropy,
        mean_probability=found.mean_probability,
        predictions=predictions,
    )
    return outputs, Constants(codes=found.codes, decoder_features=features, kept=kept)


def _objective(
    outputs: TokenizerOutputs,
    *,
    training: TokenizerTraining,
    frozen: Mapping[str, PyTree],
    batch: TokenizerBatch,
    constants: Constants,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Everything but the adversarial loss; values per sub-codebook are summed."""
    distance = None
    if training.perceptual_distance is not None:
        distance = in_parts(partial(training.perceptual_distance, frozen["perceptual"]), training.accumulate)
    return losses.objective(
        losses.tokenizer,
        training.loss_weights,
        num_codebooks=training.module.num_codebooks,
        over_codebooks=jnp.sum,
        options=training.loss_options,
        images=batch.images,
        targets=batch.targets,
        codes=constants.codes,
        kept=constants.kept,
        perceptual_distance=distance,
        **outputs.by_name(),
    )


def _last_layer(module: FQGAN, params: PyTree, features: Float[Array, "B H W C"]) -> LastLayer:
    """The decoder's last convolution as a function of its kernel, on its fixed input."""
    last = params["decoder"]["conv_out"]

    def to_pixels(kernel: Array) -> Images:
        decoder = {"conv_out": {"kernel": kernel, "bias": last["bias"]}}
        return apply(module, {"decoder": decoder}, features, method="to_pixels")

    return LastLayer(to_pixels=to_pixels, kernel=last["kernel"])


def in_parts(function: Callable, parts: int) -> Callable:
    """Returns the same function of a batch, computed one part at a time, forward and backward.

    Exact for functions of each example on its own. Every part takes an equal share of each device's examples.
    """
    if parts == 1:
        return function

    def split(x: Array) -> Array:
        return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)

    def join(x: Array) -> Array:
        return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])

    def mapped(*inputs: Array) -> Any:
        outputs = jax.lax.map(jax.checkpoint(lambda part: function(*part)), jax.tree.map(split, inputs))
        return jax.tree.map(join, outputs)

    return mapped
