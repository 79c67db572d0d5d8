"""Quantizers: latents [B, h, w, K, d] to codes [B, h, w, K] and back, K sub-codebooks at once.

`quantizers` is the table that the config field `model.quantizer` chooses from. A quantizer of your own is a subclass of
`Quantizer` under the decorator `@quantizers("name")`.
"""

# isort: off
from fqgan_jax.models.quantizers.quantizer import Quantizer, QuantizerOutput, QuantizerSizes, quantizers
from fqgan_jax.models.quantizers.gradients import gradients
from fqgan_jax.models.quantizers.codebooks import CodebookQuantizer, FactorizedQuantizer, IBQ, SimVQ
from fqgan_jax.models.quantizers.binary import BSQ, LFQ
from fqgan_jax.models.quantizers.finite_scalar import FSQ
# isort: on

__all__ = [
    "BSQ",
    "FSQ",
    "IBQ",
    "LFQ",
    "CodebookQuantizer",
    "FactorizedQuantizer",
    "Quantizer",
    "QuantizerOutput",
    "QuantizerSizes",
    "SimVQ",
    "gradients",
    "quantizers",
]
