"""The whole tokenizer, with both heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_models import random_params

from fqgan_jax.models.fqgan import FQGAN


def tokenizer(num_codebooks: int, **fields) -> FQGAN:
    return FQGAN(
        num_codebooks=num_codebooks,
        codebook_size=8,
        code_dim=4,
        grid=(4, 4),
        base_width=8,
        multipliers=(1, 2),
        num_blocks=1,
        norm_groups=2,
        adapter_depth=1,
        adapter_heads=2,
        feature_depth=1,
        feature_heads=2,
        **fields,
    )


@pytest.mark.parametrize(
    ("K", "fields"),
    [
        pytest.param(
            3,
            {"z_channels": 8, "factorization": "adapters", "feature_widths": (None, 8, 12)},
            marks=pytest.mark.slow,
        ),
        (16, {"z_channels": 64, "factorization": "split", "feature_widths": ()}),
    ],
)
def test_every_parameter_learns_and_codes_agree(K, fields):
    module = tokenizer(K, **fields)
    images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3), minval=-1)
    params = random_params(module, images)

    @jax.jit
    def everything(params):
        def loss(params):
            output = module.apply({"params": params}, images)
            total = jnp.sum(output.reconstruction**2) + jnp.sum(output.quantizer.entries * jnp.arange(4))
            return total + sum(jnp.sum(each**3) for each in output.features if each is not None), output

        grads, output = jax.grad(loss, has_aux=True)(params)
        codes = module.apply({"params": params}, images, method="encode")
        return grads, output, codes, module.apply({"params": params}, codes, method="decode")

    grads, output, codes, decoded = everything(params)
    assert not [path for path, leaf in jax.tree_util.tree_leaves_with_path(grads) if not np.any(leaf)]
    assert output.quantizer.codes.shape == (2, 4, 4, K)
    shapes = [None if feature is None else feature.shape for feature in output.features]
    assert shapes == [None if width is None else (2, width) for width in fields["feature_widths"]]
    np.testing.assert_array_equal(codes, output.quantizer.codes)
    np.testing.assert_allclose(decoded, output.reconstruction, atol=1e-5)
