"""The whole tokenizer, both factorizations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fqgan_jax.models.fqgan import FQGAN

SIZES = {"codebook_size": 8, "code_dim": 4, "grid": (4, 4), "base_width": 8, "multipliers": (1, 2), "num_blocks": 1}
SIZES |= {"adapter_depth": 1, "adapter_heads": 2, "feature_depth": 1, "feature_heads": 2, "norm_groups": 2}


@pytest.mark.parametrize(
    ("K", "z_channels", "factorization", "feature_widths"),
    [(3, 8, "adapters", (None, 8, 12)), (16, 64, "split", ())],
)
def test_every_parameter_learns_and_codes_agree(K, z_channels, factorization, feature_widths):
    fields = {"z_channels": z_channels, "factorization": factorization, "feature_widths": feature_widths}
    module = FQGAN(num_codebooks=K, **SIZES, **fields)
    images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3), minval=-1)
    params = jax.jit(module.init)(jax.random.key(1), images)

    @jax.jit
    def value_and_gradients(params):
        def loss(params):
            output = module.apply(params, images)
            quantized = output.quantizer
            total = jnp.sum(output.reconstruction**2) + jnp.sum(quantized.entries * jnp.arange(4))
            return total + sum(jnp.sum(each**3) for each in output.features if each is not None), output

        return jax.grad(loss, has_aux=True)(params)

    gradients, output = value_and_gradients(params)
    still = [path for path, leaf in jax.tree_util.tree_leaves_with_path(gradients) if not np.any(leaf)]
    assert not still
    assert output.quantizer.codes.shape == (2, 4, 4, K)
    assert [each if each is None else each.shape for each in output.features] == [
        width and (2, width) for width in feature_widths
    ]
    codes = jax.jit(lambda params: module.apply(params, images, method="encode"))(params)
    np.testing.assert_array_equal(codes, output.quantizer.codes)
    decoded = jax.jit(lambda params: module.apply(params, codes, method="decode"))(params)
    np.testing.assert_allclose(decoded, output.reconstruction, atol=1e-5)
