"""Training: one loop for all tasks, their steps, and what a run keeps."""

from fqgan_jax.training.loop import train

__all__ = ["train"]
