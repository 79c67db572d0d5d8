"""Blocks against the layers they replace, and shapes of the autoencoder."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fqgan_jax.models import blocks
from fqgan_jax.models.autoencoder import Decoder, Encoder


def test_patch_conv_is_a_convolution():
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 4))
    params = blocks.PatchConv(width=7).init(jax.random.key(1), x)
    params["params"]["bias"] = jnp.arange(7.0)
    expected = nn.Conv(7, (3, 3)).apply(params, x)
    np.testing.assert_allclose(blocks.PatchConv(width=7).apply(params, x), expected, atol=1e-5)


def test_stacked_transformer_equals_its_blocks_one_by_one():
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    params = blocks.Transformer(depth=3, num_heads=2).init(jax.random.key(1), x)
    expected = x
    for layer in range(3):
        one = jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["params"]["blocks"])
        expected = blocks.TransformerBlock(num_heads=2).apply({"params": one}, expected)
    np.testing.assert_allclose(blocks.Transformer(depth=3, num_heads=2).apply(params, x), expected, atol=1e-5)


def test_positions_are_untouched_on_the_learned_grid_and_smooth_on_others():
    rows, columns = jnp.meshgrid(jnp.arange(8.0), jnp.arange(8.0), indexing="ij")
    ramp = jnp.stack([rows, columns], -1).reshape(64, 2)
    assert blocks.resize_positions(ramp, (8, 8), (8, 8)) is ramp
    larger = blocks.resize_positions(ramp, (8, 8), (8, 16)).reshape(8, 16, 2)
    # A ramp stays a ramp between the borders: columns at half steps.
    np.testing.assert_allclose(larger[3, 5:11, 1], np.arange(5, 11) / 2 - 0.25, atol=1e-4)
    np.testing.assert_allclose(larger[3, 5:11, 0], 3, atol=1e-4)


def whole_decoder(decoder: Decoder, x):
    return decoder.to_pixels(decoder(x))


@pytest.mark.parametrize("multipliers", [(1, 2, 2), (1, 1, 2, 2), (1, 1, 1, 2, 2)])
def test_encoder_and_decoder_shapes(multipliers):
    f = 2 ** (len(multipliers) - 1)
    images = jax.ShapeDtypeStruct((2, 32, 64, 3), jnp.float32)

    def encode_and_decode(images):
        encoder = Encoder(base_width=8, multipliers=multipliers, num_blocks=1)
        decoder = Decoder(base_width=8, multipliers=multipliers, num_blocks=1)
        features, _ = encoder.init_with_output(jax.random.key(0), images)
        pixels, _ = decoder.init_with_output(jax.random.key(0), features, method=whole_decoder)
        return features, pixels

    features, pixels = jax.eval_shape(encode_and_decode, images)
    assert features.shape == (2, 32 // f, 64 // f, 16)
    assert pixels.shape == (2, 32, 64, 3)
