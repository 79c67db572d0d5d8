"""Quantizers that choose the nearest of N entries of a table: VQ (the paper), SimVQ and IBQ."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fqgan_jax.errors import check
from fqgan_jax.models.quantizers.distances import (
    l2_normalize,
    lookup,
    nearest_codes,
    random_near_codes,
    soft_assignment,
    soft_lookup,
)
from fqgan_jax.models.quantizers.gradients import gradients
from fqgan_jax.models.quantizers.quantizer import Quantizer, QuantizerOutput, QuantizerSizes, quantizers


class CodebookQuantizer(Quantizer):
    """Base of quantizers with a table: the nearest entry of each of K codebooks, all at once, in float32.

    A subclass says in `all_entries` where the entries come from.
    """

    def all_entries(self) -> Float[Array, "K N d"]:
        """Returns the entries of all codes, before they are normalized."""
        raise NotImplementedError

    def __call__(self, latents: Float[Array, "B h w K d"]) -> QuantizerOutput:
        """Quantizes for training: codes, entries and the statistics of the soft assignment."""
        z, codebooks = self._comparable(latents), self._comparable(self.all_entries())
        B, h, w, K, d = z.shape
        codes, token_entropy, mean_probability = soft_assignment(
            z.reshape(B, h * w, K, d),
            codebooks,
            temperature=self.sizes.temperature,
            chunk_tokens=self.sizes.chunk_tokens,
        )
        codes = codes.reshape(B, h, w, K)
        entries = lookup(codebooks, codes)
        soft_entries = self.soft_entries(z, codebooks, codes)
        return QuantizerOutput(
            quantized=gradients[self.sizes.gradient](z, entries) if soft_entries is None else soft_entries,
            codes=codes,
            latents=z,
            entries=entries,
            soft_entries=soft_entries,
            token_entropy=token_entropy,
            mean_probability=mean_probability,
        )

    def soft_entries(
        self, latents: Float[Array, "B h w K d"], codebooks: Float[Array, "K N d"], codes: Int[Array, "B h w K"]
    ) -> Float[Array, "B h w K d"] | None:
        """Returns `QuantizerOutput.soft_entries`; None by default."""
        del latents, codebooks, codes
        return None

    def encode(self, latents: Float[Array, "B h w K d"]) -> Int[Array, "B h w K"]:
        """Computes the codes alone."""
        z, codebooks = self._comparable(latents), self._comparable(self.all_entries())
        B, h, w, K, d = z.shape
        codes = nearest_codes(z.reshape(B, h * w, K, d), codebooks, chunk_tokens=self.sizes.chunk_tokens)
        return codes.reshape(B, h, w, K)

    def decode(self, codes: Int[Array, "B h w K"]) -> Float[Array, "B h w K d"]:
        """Looks up the entries of codes."""
        return lookup(self._comparable(self.all_entries()), codes)

    def near_entries(
        self, key: Array, latents: Float[Array, "B h w K d"], *, nearest: int
    ) -> Float[Array, "B h w K d"]:
        """Draws one of the `nearest` entries of each latent, with a straight-through gradient.

        Args:
          key: random key of the choice.
          latents: latents as they are compared, `QuantizerOutput.latents`.
          nearest: how many entries may be drawn.
        """
        codebooks = self._comparable(self.all_entries())
        B, h, w, K, d = latents.shape
        codes = random_near_codes(
            key,
            latents.reshape(B, h * w, K, d),
            codebooks,
            nearest=nearest,
            chunk_tokens=self.sizes.chunk_tokens,
        )
        return gradients["straight_through"](latents, lookup(codebooks, codes.reshape(B, h, w, K)))

    def _comparable(self, x: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
        x = x.astype(jnp.float32)
        return l2_normalize(x) if self.sizes.normalized else x


@quantizers("vq")
class FactorizedQuantizer(CodebookQuantizer):
    """The paper's: K learned codebooks, one array [K, N, d]."""

    def setup(self):
        """Draws the entries from uniform(-1/N, 1/N), then normalizes them."""
        self.codebooks = self.param("codebooks", _initial_entries(self.sizes), _table_shape(self.sizes))

    def all_entries(self) -> Float[Array, "K N d"]:
        """Returns the parameters."""
        return self.codebooks


@quantizers("simvq")
class SimVQ(CodebookQuantizer):
    """Entries are a constant table times a learned matrix, so that all of them move together (arXiv 2411.02038)."""

    fixed = ("basis",)

    def setup(self):
        """Draws the constant table from a normal distribution of variance 1/d; the matrix begins as the identity."""
        sizes = self.sizes
        self.basis = self.param("basis", nn.initializers.normal(sizes.code_dim**-0.5), _table_shape(sizes))
        self.projection = self.param("projection", _identities, (sizes.num_codebooks, sizes.code_dim, sizes.code_dim))

    def all_entries(self) -> Float[Array, "K N d"]:
        """Returns the products of tables and matrices."""
        basis = jax.lax.stop_gradient(self.basis)
        return jnp.einsum("knd,kde->kne", basis, self.projection, precision=jax.lax.Precision.HIGHEST)


@quantizers("ibq")
class IBQ(FactorizedQuantizer):
    """Learned codebooks whose every entry gets a gradient, through a softmax over all of them (arXiv 2412.02692)."""

    @staticmethod
    def check_sizes(sizes: QuantizerSizes) -> None:
        """Raises `UserError` if another gradient is asked for."""
        check(
            sizes.gradient == "straight_through",
            f'model.quantizer="ibq" has a gradient of its own: leave out model.gradient={sizes.gradient!r}.',
        )

    def soft_entries(
        self, latents: Float[Array, "B h w K d"], codebooks: Float[Array, "K N d"], codes: Int[Array, "B h w K"]
    ) -> Float[Array, "B h w K d"]:
        """Returns the chosen entries, with the gradient of their mean under softmax(latent . entry)."""
        B, h, w, K, d = latents.shape
        flat, codes = latents.reshape(B, h * w, K, d), codes.reshape(B, h * w, K)
        return soft_lookup(flat, codebooks, codes, chunk_tokens=self.sizes.chunk_tokens).reshape(latents.shape)


def _table_shape(sizes: QuantizerSizes) -> tuple[int, int, int]:
    return sizes.num_codebooks, sizes.codebook_size, sizes.code_dim


def _initial_entries(sizes: QuantizerSizes) -> Callable[[Array, tuple[int, ...]], Array]:
    bound = 1 / sizes.codebook_size

    def init(key, shape):
        entries = jax.random.uniform(key, shape, minval=-bound, maxval=bound)
        return l2_normalize(entries) if sizes.normalized else entries

    return init


def _identities(key: Array, shape: tuple[int, ...]) -> Float[Array, "K d d"]:
    del key
    return jnp.broadcast_to(jnp.eye(shape[-1]), shape)
