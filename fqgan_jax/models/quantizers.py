"""The factorized quantizer: K independent codebooks, one array `[K, N, d]` (paper section 3.1)."""

from functools import partial

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@flax.struct.dataclass
class QuantizerOutput:
    """What quantization of a batch of latents gives; all float32.

    Attributes:
      quantized: entries with the straight-through gradient to the latents.
      codes: index of the nearest entry.
      latents: the latents that were compared (normalized where the quantizer normalizes).
      entries: the same values as `quantized`, with the gradient to the codebooks.
      token_entropy: mean over tokens of the entropy of each token's soft assignment, in nats.
      mean_probability: the soft assignment averaged over tokens.
    """

    quantized: Float[Array, "B h w K d"]
    codes: Int[Array, "B h w K"]
    latents: Float[Array, "B h w K d"]
    entries: Float[Array, "B h w K d"]
    token_entropy: Float[Array, " K"]
    mean_probability: Float[Array, "K N"]


def l2_normalize(x: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
    """Vectors of unit length (zero stays zero, with a zero gradient)."""
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))


def squared_distances(x: Float[Array, "*s K d"], codebooks: Float[Array, "K N d"]) -> Float[Array, "*s K N"]:
    """Squared Euclidean distance of each latent to each entry of its own sub-codebook."""
    products = jnp.einsum("...kd,knd->...kn", x, codebooks, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(x * x, -1)[..., None] + jnp.sum(codebooks * codebooks, -1) - 2 * products


def lookup(codebooks: Float[Array, "K N d"], codes: Int[Array, "*s K"]) -> Float[Array, "*s K d"]:
    """Entries of the given codes."""
    return jax.vmap(lambda entries, index: entries[index], in_axes=(0, -1), out_axes=-2)(codebooks, codes)


def _chunked(x: Float[Array, "B T K d"], chunk_tokens: int) -> Float[Array, "n B c K d"]:
    """Cuts the positions, not the batch, so that a batch sharded over devices stays where it is."""
    B, T = x.shape[:2]
    positions = max(c for c in range(1, T + 1) if T % c == 0 and (c == 1 or c * B <= chunk_tokens))
    return x.reshape(B, T // positions, positions, *x.shape[2:]).swapaxes(0, 1)


def _unchunked(x: Array) -> Array:
    """Inverse of `_chunked`."""
    n, B, c = x.shape[:3]
    return x.swapaxes(0, 1).reshape(B, n * c, *x.shape[3:])


def nearest_codes(
    x: Float[Array, "B T K d"], codebooks: Float[Array, "K N d"], chunk_tokens: int = 4096
) -> Int[Array, "B T K"]:
    """Index of the nearest entry, for `chunk_tokens` tokens at a time."""
    nearest = lambda chunk: jnp.argmin(squared_distances(chunk, codebooks), axis=-1)
    return _unchunked(jax.lax.map(nearest, _chunked(x, chunk_tokens)))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def soft_assignment(
    x: Float[Array, "B T K d"], codebooks: Float[Array, "K N d"], temperature: float, chunk_tokens: int
) -> tuple[Int[Array, "B T K"], Float[Array, " K"], Float[Array, "K N"]]:
    """Nearest codes, mean token entropy and mean probability of p = softmax(-squared distance / temperature).

    The table tokens x N exists for `chunk_tokens` tokens at a time only, in the gradient too.
    """
    return _soft_assignment_forward(x, codebooks, temperature, chunk_tokens)[0]


def _soft_assignment_forward(x, codebooks, temperature, chunk_tokens):
    def body(sums, chunk):
        distances = squared_distances(chunk, codebooks)
        log_p = jax.nn.log_softmax(-distances / temperature)
        p = jnp.exp(log_p)
        entropy, probability = sums
        sums = entropy - jnp.sum(p * log_p, (0, 1, 3)), probability + jnp.sum(p, (0, 1))
        return sums, jnp.argmin(distances, axis=-1)

    K, N, _ = codebooks.shape
    (entropy, probability), codes = jax.lax.scan(body, (jnp.zeros(K), jnp.zeros((K, N))), _chunked(x, chunk_tokens))
    tokens = x.shape[0] * x.shape[1]
    return (_unchunked(codes), entropy / tokens, probability / tokens), (x, codebooks)


def _soft_assignment_backward(temperature, chunk_tokens, residuals, cotangents):
    x, codebooks = residuals
    _, entropy_bar, probability_bar = cotangents
    tokens = x.shape[0] * x.shape[1]

    def body(codebooks_bar, chunk):
        log_p = jax.nn.log_softmax(-squared_distances(chunk, codebooks) / temperature)
        p = jnp.exp(log_p)
        # The gradient of a function of p with respect to the logits is p * (g - sum(p * g)).
        g = probability_bar - entropy_bar[:, None] * log_p
        logits_bar = p * (g - jnp.sum(p * g, -1, keepdims=True)) * (2 / temperature / tokens)
        product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
        chunk_bar = product("bckn,knd->bckd", logits_bar, codebooks)
        codebooks_bar = codebooks_bar + product("bckn,bckd->knd", logits_bar, chunk)
        codebooks_bar = codebooks_bar - jnp.sum(logits_bar, (0, 1))[..., None] * codebooks
        return codebooks_bar, chunk_bar

    codebooks_bar, x_bar = jax.lax.scan(body, jnp.zeros_like(codebooks), _chunked(x, chunk_tokens))
    return _unchunked(x_bar), codebooks_bar


soft_assignment.defvjp(_soft_assignment_forward, _soft_assignment_backward)


class FactorizedQuantizer(nn.Module):
    """Nearest entry of each of K codebooks, all at once, with a straight-through gradient. Float32 throughout.

    Attributes:
      num_codebooks: K.
      codebook_size: N, entries per sub-codebook.
      code_dim: d.
      normalized: compare unit vectors (the paper) instead of plain ones.
      temperature: of the soft assignment behind the entropy loss.
      chunk_tokens: tokens of the whole batch for which distances exist at a time.
    """

    num_codebooks: int
    codebook_size: int
    code_dim: int
    normalized: bool = True
    temperature: float = 0.01
    chunk_tokens: int = 4096

    def setup(self):
        def init(key, shape):
            entries = jax.random.uniform(key, shape, minval=-1 / self.codebook_size, maxval=1 / self.codebook_size)
            return l2_normalize(entries) if self.normalized else entries

        self.codebooks = self.param("codebooks", init, (self.num_codebooks, self.codebook_size, self.code_dim))

    def _comparable(self, x: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
        x = x.astype(jnp.float32)
        return l2_normalize(x) if self.normalized else x

    def __call__(self, latents: Float[Array, "B h w K d"]) -> QuantizerOutput:
        """Quantizes for training: codes, entries and the statistics of the soft assignment."""
        z, codebooks = self._comparable(latents), self._comparable(self.codebooks)
        B, h, w, K, d = z.shape
        flat = z.reshape(B, h * w, K, d)
        codes, entropy, probability = soft_assignment(flat, codebooks, self.temperature, self.chunk_tokens)
        codes = codes.reshape(B, h, w, K)
        entries = lookup(codebooks, codes)
        straight_through = z + jax.lax.stop_gradient(entries - z)
        return QuantizerOutput(straight_through, codes, z, entries, entropy, probability)

    def encode(self, latents: Float[Array, "B h w K d"]) -> Int[Array, "B h w K"]:
        """Codes alone."""
        z = self._comparable(latents)
        B, h, w, K, d = z.shape
        codes = nearest_codes(z.reshape(B, h * w, K, d), self._comparable(self.codebooks), self.chunk_tokens)
        return codes.reshape(B, h, w, K)

    def decode(self, codes: Int[Array, "B h w K"]) -> Float[Array, "B h w K d"]:
        """Entries of the codes."""
        return lookup(self._comparable(self.codebooks), codes)
