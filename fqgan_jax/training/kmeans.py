"""Codebooks that begin as the k-means centres of latents."""

from collections.abc import Iterable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from fqgan_jax.data.pixels import to_float
from fqgan_jax.errors import check
from fqgan_jax.models.applying import apply
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.models.quantizers.distances import l2_normalize, nearest_codes


@partial(jax.jit, static_argnames=("num_centres", "iterations", "normalized", "chunk_tokens"))
def kmeans(
    key: Key[Array, ""],
    latents: Float[Array, "n K d"],
    *,
    num_centres: int,
    iterations: int = 20,
    normalized: bool = True,
    chunk_tokens: int = 4096,
) -> Float[Array, "K N d"]:
    """Finds the centres of latents by Lloyd's iteration, for each sub-codebook on its own.

    It starts from latents drawn without replacement; a centre that is nearest to no latent stays where it is.

    Args:
      key: random key of the start.
      latents: at least `num_centres` of them.
      num_centres: N.
      iterations: how often latents are assigned and centres moved.
      normalized: latents and centres are unit vectors (spherical k-means).
      chunk_tokens: tokens whose distances are in memory at a time.
    """
    if normalized:
        latents = l2_normalize(latents)
    n, K, _ = latents.shape
    chosen = jax.vmap(lambda key: jax.random.permutation(key, n)[:num_centres])(jax.random.split(key, K))
    by_codebook = latents.swapaxes(0, 1)
    start = jnp.take_along_axis(by_codebook, chosen[..., None], axis=1)

    def move(_, centres):
        codes = nearest_codes(latents[None], centres, chunk_tokens=chunk_tokens)[0]
        sums, counts = jax.vmap(partial(_sums, num_centres=num_centres))(by_codebook, codes.T)
        means = jnp.where(counts[..., None] > 0, sums / jnp.maximum(counts, 1)[..., None], centres)
        return l2_normalize(means) if normalized else means

    return jax.lax.fori_loop(0, iterations, move, start)


def codebooks_from_latents(
    module: FQGAN, params: PyTree, batches: Iterable[Mapping[str, Array]], *, key: Key[Array, ""]
) -> PyTree:
    """Returns the parameters with codebooks that are the centres of these batches' latents.

    Args:
      module: a tokenizer whose quantizer has codebooks.
      params: its parameters.
      batches: training batches, uint8 images under "image".
      key: random key of the start.

    Raises:
      UserError: there are fewer latents than entries.
    """
    codebooks = params["quantizer"]["codebooks"]

    @jax.jit
    def latents(params: PyTree, images: Array) -> Array:
        found = apply(module, params, to_float(images), method="latents")
        return found.reshape(-1, *found.shape[-2:])

    collected = jnp.concatenate([latents(params, batch["image"]) for batch in batches])
    N = codebooks.shape[1]
    check(
        len(collected) >= N,
        f"k-means of {N} entries needs at least as many latents, and these batches have {len(collected)}: set a larger "
        "kmeans_batches.",
    )
    centres = kmeans(key, collected, num_centres=N, normalized=module.normalized, chunk_tokens=module.chunk_tokens)
    centres = jax.device_put(centres, codebooks.sharding)
    return params | {"quantizer": params["quantizer"] | {"codebooks": centres}}


def _sums(
    latents: Float[Array, "n d"], codes: Array, *, num_centres: int
) -> tuple[Float[Array, "N d"], Float[Array, " N"]]:
    """Sum and number of the latents that are assigned to each centre."""
    sums = jax.ops.segment_sum(latents, codes, num_centres)
    return sums, jax.ops.segment_sum(jnp.ones(len(latents)), codes, num_centres)
