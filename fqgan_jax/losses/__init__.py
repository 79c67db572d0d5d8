"""Unweighted losses: pure functions; the weights are applied in `fqgan_jax.training`."""
