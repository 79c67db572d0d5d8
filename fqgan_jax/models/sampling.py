"""Drawing codes from FAR in compiled loops with caches; some may be known."""

from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from fqgan_jax.models.far import FAR
from fqgan_jax.models.predictions import predictions
from fqgan_jax.models.sampling_options import SamplingOptions, draw_codes
from fqgan_jax.models.stepwise import StepwiseFAR


@flax.struct.dataclass(kw_only=True)
class Known:
    """Codes that are given and not drawn.

    Attributes:
      codes: of all positions; those that are not kept are ignored.
      keep: which positions are known.
    """

    codes: Int[Array, "B h w K"]
    keep: Bool[Array, "B h w"]


@partial(jax.jit, static_argnums=0, static_argnames="with_logits")
def sample_codes(
    module: FAR,
    params: PyTree,
    *,
    keys: Key[Array, " B"],
    labels: Int[Array, " B"],
    options: SamplingOptions,
    known: Known | None = None,
    with_logits: bool = False,
) -> Int[Array, "B h w K"] | tuple[Int[Array, "B h w K"], Float[Array, "B T K N"]]:
    """Draws codes for each label, in compiled loops over steps.

    A sample depends on its own key and label only, so it is the same in every batch. With guidance, conditional and
    unconditional rows run as one batch (paper section 3.4; Ho & Salimans 2022).

    Args:
      module: the generator.
      params: its parameters.
      keys: one per sample.
      labels: classes, in [0, C].
      options: how codes are drawn.
      known: codes that are kept where they come; they guide what comes after them.
      with_logits: return the (guided) logits too.

    Returns:
      The codes; with `with_logits`, also the logits they were drawn from.
    """
    (h, w), K = module.grid, module.num_codebooks
    B, T = labels.shape[0], h * w  # B is symbolic when the loop is exported
    guided = options.guidance is not None
    rows = jnp.concatenate([labels, jnp.full_like(labels, module.num_classes)]) if guided else labels
    stepwise = StepwiseFAR.from_params(module, params)
    prediction = predictions[module.prediction]

    def step(carry, s):
        caches, previous = carry
        positions = prediction.positions(s, K)

        def choose(logits, k):
            t = positions[k]
            code_keys = jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, t), k))(keys)
            codes = draw_codes(code_keys, guide(logits, k, t), options=options, k=k).astype(jnp.int32)
            if known is not None:
                given, keep = known.codes.reshape(B, T, K)[:, t, k], known.keep.reshape(B, T)[:, t]
                codes = jnp.where(keep, given, codes)
            return jnp.concatenate([codes, codes]) if guided else codes

        caches, codes, logits = prediction.step(stepwise, caches, previous, s=s, labels=rows, choose=choose)
        if with_logits:
            logits = jnp.stack([guide(logits[:, k], k, positions[k]) for k in range(K)], axis=1)
        return (caches, codes), (codes[:B], logits if with_logits else None)

    def guide(logits, k, t):
        if not guided:
            return logits
        conditional, unconditional = jnp.split(logits, 2)
        return unconditional + options.scale(k, t, T) * (conditional - unconditional)

    carry = stepwise.empty_caches(rows.shape[0], 0), jnp.zeros((rows.shape[0], K), jnp.int32)
    stretches = []
    for start, stop in sampling_stretches(prediction.num_steps(T, K)):
        caches, previous = carry
        carry = [cache.resized(stop * prediction.tokens_per_step(K)) for cache in caches], previous
        carry, drawn = jax.lax.scan(step, carry, jnp.arange(start, stop))
        stretches.append(drawn)
    drawn = jax.tree.map(lambda *parts: jnp.concatenate(parts).swapaxes(0, 1), *stretches)
    codes, logits = jax.tree.map(lambda each: prediction.aligned(each, T), drawn)
    codes = codes.reshape(B, h, w, K)
    return (codes, logits) if with_logits else codes


def sampling_stretches(length: int) -> list[tuple[int, int]]:
    """Cuts the steps into at most four loops: attention reads what a cache has room for, also where it is empty."""
    size = max(64, -(-length // 4))
    return [(start, min(start + size, length)) for start in range(0, length, size)]
