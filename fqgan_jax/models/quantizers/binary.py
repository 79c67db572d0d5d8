"""Quantizers whose entries are the corners of a cube, so that N = 2^d needs no table: LFQ and BSQ.

A code is the latent's signs as a binary number, the first dimension being the highest bit. The bits of the soft
assignment softmax(-squared distance / temperature) are independent, so that its entropy is a sum over dimensions.
"""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fqgan_jax.errors import check
from fqgan_jax.models.quantizers.distances import l2_normalize
from fqgan_jax.models.quantizers.gradients import gradients
from fqgan_jax.models.quantizers.quantizer import Quantizer, QuantizerOutput, QuantizerSizes, quantizers

# Dimensions whose joint distribution, averaged over tokens, is kept: 2^10 numbers for each group.
LARGEST_GROUP = 10


class BinaryQuantizer(Quantizer):
    """Base of LFQ and BSQ: each dimension's sign."""

    on_sphere: ClassVar[bool]

    @staticmethod
    def check_sizes(sizes: QuantizerSizes) -> None:
        """Raises `UserError` unless N = 2^d."""
        N, d = sizes.codebook_size, sizes.code_dim
        check(d <= 30, f"model.code_dim={d} is more than the 30 bits that a code can have here.")
        check(
            2**d == N,
            f"A code of signs is one of 2^d: model.code_dim={d} gives {2**d} entries, not "
            f"model.codebook_size={N}. Set model.codebook_size={2**d}, or change model.code_dim.",
        )

    @property
    def scale(self) -> float:
        """Size of an entry's coordinates."""
        return self.sizes.code_dim**-0.5 if self.on_sphere else 1.0

    def __call__(self, latents: Float[Array, "B h w K d"]) -> QuantizerOutput:
        """Quantizes for training: codes, entries and the statistics of the soft assignment."""
        z = self._comparable(latents)
        entries = jnp.where(z > 0, self.scale, -self.scale)
        logits = (4 * self.scale / self.sizes.temperature) * z.reshape(-1, *z.shape[-2:])
        return QuantizerOutput(
            quantized=gradients[self.sizes.gradient](z, entries),
            codes=self.encode(latents),
            latents=z,
            entries=entries,
            token_entropy=jnp.mean(jnp.sum(_binary_entropy(logits), -1), 0),
            mean_probability=_mean_probability(jax.nn.sigmoid(logits)),
        )

    def encode(self, latents: Float[Array, "B h w K d"]) -> Int[Array, "B h w K"]:
        """Computes the codes alone."""
        return jnp.sum((latents > 0) * self._place_values(), axis=-1)

    def decode(self, codes: Int[Array, "B h w K"]) -> Float[Array, "B h w K d"]:
        """Returns the entries of codes."""
        bits = (codes[..., None] & self._place_values()) > 0
        return jnp.where(bits, self.scale, -self.scale)

    def _place_values(self) -> Int[Array, " d"]:
        return 2 ** jnp.arange(self.sizes.code_dim - 1, -1, -1, dtype=jnp.int32)

    def _comparable(self, latents: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
        latents = latents.astype(jnp.float32)
        return l2_normalize(latents) if self.on_sphere else latents


@quantizers("lfq")
class LFQ(BinaryQuantizer):
    """Lookup-free quantization: entries are {-1, 1}^d (Yu et al. 2023, arXiv 2310.05737)."""

    on_sphere = False


@quantizers("bsq")
class BSQ(BinaryQuantizer):
    """Binary spherical quantization: latents and entries have unit length (Zhao et al. 2024, arXiv 2406.07548)."""

    on_sphere = True


def _binary_entropy(logits: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Entropy in nats of bits that are 1 with probability sigmoid(logits)."""
    p = jax.nn.sigmoid(logits)
    return p * jax.nn.softplus(-logits) + (1 - p) * jax.nn.softplus(logits)


def _mean_probability(ones: Float[Array, "T K d"]) -> Float[Array, "K groups n"]:
    """Averages, over tokens, the joint distribution of the bits of each group of dimensions.

    Args:
      ones: probability of each bit to be 1, with independent bits for each token.

    Returns:
      Probabilities of a group's 2^g values. The dimensions are cut into equal groups of at most `LARGEST_GROUP`; a bit
      that is never 1 fills up the last ones (Luo et al. 2024, arXiv 2409.04410, take the entropy by groups).
    """
    T, K, d = ones.shape
    groups = math.ceil(d / LARGEST_GROUP)
    size = math.ceil(d / groups)
    filled = jnp.pad(ones, ((0, 0), (0, 0), (groups * size - d, 0))).reshape(T, K, groups, size)
    # The joint distribution is the product of those of two halves: no table of all values exists for each token.
    first, second = _joint(filled[..., : size // 2]), _joint(filled[..., size // 2 :])
    mean = jnp.einsum("tkga,tkgb->kgab", first, second, precision=jax.lax.Precision.HIGHEST) / T
    return mean.reshape(K, groups, -1)


def _joint(ones: Float[Array, "*s bits"]) -> Float[Array, "*s values"]:
    """Joint distribution of independent bits, the first being the highest."""
    joint = jnp.ones((*ones.shape[:-1], 1))
    for i in range(ones.shape[-1]):
        bit = jnp.stack([1 - ones[..., i], ones[..., i]], axis=-1)
        joint = (joint[..., :, None] * bit[..., None, :]).reshape(*joint.shape[:-1], -1)
    return joint
