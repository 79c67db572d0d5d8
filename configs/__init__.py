"""Configs that come with fqgan_jax."""
