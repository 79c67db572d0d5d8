"""Frozen pretrained networks and their weights: teachers, LPIPS, Inception."""

# Teachers add their weights to the table of frozen networks: it is whole whichever module is imported.
from fqgan_jax.pretrained import teachers

__all__ = ["teachers"]
