"""Drawing codes from FAR: classifier-free guidance, temperature, top-k and top-p, in compiled loops with caches."""

from collections.abc import Sequence
from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from fqgan_jax.errors import UserError
from fqgan_jax.models.far import FAR
from fqgan_jax.models.stepwise import StepwiseFAR


@partial(flax.struct.dataclass, kw_only=True)
class SamplingOptions:
    """How codes are drawn, one value per sub-codebook.

    Attributes:
      guidance: scale s of u + s (c - u); None without guidance, which halves the work.
      temperature: logits are divided by it; 0 takes the most probable code.
      top_k: only the k most probable codes; 0 or None: all.
      top_p: only the most probable codes that together reach this probability; 1 or None: all.
    """

    guidance: Float[Array, " K"] | None
    temperature: Float[Array, " K"]
    top_k: Int[Array, " K"] | None
    top_p: Float[Array, " K"] | None


def sampling_options(
    num_codebooks: int,
    *,
    guidance: float | Sequence[float] = 2.0,
    temperature: float | Sequence[float] = 1.0,
    top_k: int | Sequence[int] = 0,
    top_p: float | Sequence[float] = 1.0,
) -> SamplingOptions:
    """Builds options from one value for all sub-codebooks, or one value each.

    Raises:
      UserError: the wrong number of values, or one outside its range.
    """

    def spread(name: str, value: float | Sequence[float], *, high: float = float("inf")) -> list[float]:
        values = [value] * num_codebooks if isinstance(value, int | float) else list(value)
        if len(values) == 1:
            values *= num_codebooks
        if len(values) != num_codebooks:
            raise UserError(
                f"{name} has {len(values)} values for {num_codebooks} sub-codebooks: give one, or one each."
            )
        if not all(0 <= each <= high for each in values):
            raise UserError(f"{name} is {value}: it must lie between 0 and {high}.")
        return values

    scales, temperatures = spread("guidance", guidance), spread("temperature", temperature)
    counts, masses = spread("top_k", top_k), spread("top_p", top_p, high=1)
    # Options without effect are left out of the compiled program.
    return SamplingOptions(
        guidance=None if all(scale == 1 for scale in scales) else jnp.array(scales, jnp.float32),
        temperature=jnp.array(temperatures, jnp.float32),
        top_k=None if all(count == 0 for count in counts) else jnp.array(counts, jnp.int32),
        top_p=None if all(mass == 1 for mass in masses) else jnp.array(masses, jnp.float32),
    )


def keep_top_k(logits: Float[Array, "B N"], top_k: Int[Array, ""]) -> Float[Array, "B N"]:
    """Sets all but the `top_k` largest logits to -inf (ties with the last one stay; 0 keeps all)."""
    ranked = jnp.sort(logits, axis=-1, descending=True)
    smallest = ranked[:, jnp.where(top_k == 0, logits.shape[-1], top_k).clip(1, logits.shape[-1]) - 1]
    return jnp.where(logits < smallest[:, None], -jnp.inf, logits)


def keep_top_p(logits: Float[Array, "B N"], top_p: Float[Array, ""]) -> Float[Array, "B N"]:
    """Keeps the most probable codes until they reach `top_p`, always at least one (Holtzman et al. 2020)."""
    ranked = jnp.sort(logits, axis=-1, descending=True)
    probability = jax.nn.softmax(ranked)
    before = jnp.cumsum(probability, axis=-1) - probability
    smallest = jnp.min(jnp.where((before < top_p) | (before == 0), ranked, jnp.inf), axis=-1)
    return jnp.where(logits < smallest[:, None], -jnp.inf, logits)


def draw_codes(
    keys: Key[Array, " B"], logits: Float[Array, "B N"], *, options: SamplingOptions, k: int
) -> Int[Array, " B"]:
    """Draws one code of sub-codebook k per row, each row with its own key."""
    temperature = options.temperature[k]
    scaled = logits / jnp.where(temperature == 0, 1, temperature)
    if options.top_k is not None:
        scaled = keep_top_k(scaled, options.top_k[k])
    if options.top_p is not None:
        scaled = keep_top_p(scaled, options.top_p[k])
    drawn = jax.vmap(jax.random.categorical)(keys, scaled)
    return jnp.where(temperature == 0, jnp.argmax(logits, axis=-1), drawn)


@partial(jax.jit, static_argnums=0, static_argnames="with_logits")
def sample_codes(
    module: FAR,
    params: PyTree,
    *,
    keys: Key[Array, " B"],
    labels: Int[Array, " B"],
    options: SamplingOptions,
    with_logits: bool = False,
) -> Int[Array, "B h w K"] | tuple[Int[Array, "B h w K"], Float[Array, "B T K N"]]:
    """Draws codes for each label, in compiled loops over positions.

    A sample depends on its own key and label only, so it is the same in every batch. With guidance, conditional and
    unconditional rows run as one batch (paper section 3.4; Ho & Salimans 2022).

    Args:
      module: the generator.
      params: its parameters.
      keys: one per sample.
      labels: classes, in [0, C].
      options: how codes are drawn.
      with_logits: return the (guided) logits too.

    Returns:
      The codes; with `with_logits`, also the logits they were drawn from.
    """
    B = labels.shape[0]  # symbolic when the loop is exported
    guided = options.guidance is not None
    rows = jnp.concatenate([labels, jnp.full_like(labels, module.num_classes)]) if guided else labels
    stepwise = StepwiseFAR.from_params(module, params)

    def position(carry, t):
        caches, previous = carry
        position_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t)

        def choose(logits, k):
            code_keys = jax.vmap(jax.random.fold_in, (0, None))(position_keys, k)
            codes = draw_codes(code_keys, guide(logits, k), options=options, k=k).astype(jnp.int32)
            return jnp.concatenate([codes, codes]) if guided else codes

        caches, codes, logits = stepwise.next_position(caches, previous, t=t, labels=rows, choose=choose)
        logits = jax.vmap(guide, (1, 0), 1)(logits, jnp.arange(module.num_codebooks)) if with_logits else None
        return (caches, codes), (codes[:B], logits)

    def guide(logits, k):
        if not guided:
            return logits
        conditional, unconditional = jnp.split(logits, 2)
        return unconditional + options.guidance[k] * (conditional - unconditional)

    h, w = module.grid
    carry = stepwise.empty_caches(rows.shape[0], 0), jnp.zeros((rows.shape[0], module.num_codebooks), jnp.int32)
    stretches = []
    for start, stop in sampling_stretches(h * w):
        caches, previous = carry
        carry = [cache.resized(stop) for cache in caches], previous
        carry, drawn = jax.lax.scan(position, carry, jnp.arange(start, stop))
        stretches.append(drawn)
    codes, logits = jax.tree.map(lambda *parts: jnp.concatenate(parts).swapaxes(0, 1), *stretches)
    codes = codes.reshape(B, h, w, module.num_codebooks)
    return (codes, logits) if with_logits else codes


def sampling_stretches(length: int) -> list[tuple[int, int]]:
    """Cuts the positions into at most four loops: attention reads what a cache has room for, also where it is empty."""
    size = max(64, -(-length // 4))
    return [(start, min(start + size, length)) for start in range(0, length, size)]
