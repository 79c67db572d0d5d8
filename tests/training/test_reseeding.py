"""Dead entries move to latents of the batch, after the given number of steps and not before."""

import jax
import jax.numpy as jnp
import numpy as np

from fqgan_jax.models.quantizers import FactorizedQuantizer, QuantizerSizes
from fqgan_jax.training.reseeding import reseed


def test_reseeding():
    K, N, d, after = 2, 16, 4, 3
    quantizer = FactorizedQuantizer(sizes=QuantizerSizes(num_codebooks=K, codebook_size=N, code_dim=d))
    latents = jax.random.normal(jax.random.key(0), (2, 2, 2, K, d))
    params = quantizer.init(jax.random.key(1), latents)["params"]
    output = quantizer.apply({"params": params}, latents)
    codes = np.asarray(output.codes).reshape(-1, K)
    used = np.array([np.isin(np.arange(N), codes[:, k]) for k in range(K)])
    assert 0 < used.sum() < used.size

    whole, idle = {"quantizer": params, "other": jnp.ones(3)}, jnp.zeros((K, N), jnp.int32)
    batch = {"codes": output.codes, "latents": output.latents}
    for step in range(1, after):
        whole, idle = reseed(jax.random.key(step), whole, idle, **batch, after=after)
        np.testing.assert_array_equal(whole["quantizer"]["codebooks"], params["codebooks"])
        np.testing.assert_array_equal(idle, np.where(used, 0, step))
    whole, idle = reseed(jax.random.key(after), whole, idle, **batch, after=after)
    moved = np.asarray(whole["quantizer"]["codebooks"])
    np.testing.assert_array_equal(moved[used], np.asarray(params["codebooks"])[used])
    candidates = np.asarray(output.latents).reshape(-1, K, d)
    for k, n in zip(*np.nonzero(~used), strict=True):
        assert np.any(np.all(candidates[:, k] == moved[k, n], axis=-1))
    assert not np.any(idle)
