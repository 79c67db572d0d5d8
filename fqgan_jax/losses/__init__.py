"""Losses: pure, unweighted functions. Each is a row of a table; a config's `loss` section holds the rows' weights.

A file of your own adds a row:

    from fqgan_jax import losses

    @losses.tokenizer("total_variation")  # weight: config.loss.total_variation
    def total_variation(*, reconstruction, **_): ...
"""

# isort: off
from fqgan_jax.losses.rows import Loss, generator, objective, tokenizer
from fqgan_jax.losses import adversarial, generator_losses, quantization_losses, tokenizer_losses
# isort: on

__all__ = [
    "Loss",
    "adversarial",
    "generator",
    "generator_losses",
    "objective",
    "quantization_losses",
    "tokenizer",
    "tokenizer_losses",
]
