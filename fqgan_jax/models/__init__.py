"""Networks: pure flax.linen modules with explicit fields.

The tables of variants stand beside them: `fqgan_jax.models.quantizers.quantizers`, `fqgan_jax.models.heads.heads` and
`fqgan_jax.models.discriminators.discriminators`. They are not exported here, since they have their modules' names.
"""

from fqgan_jax.models.discriminators import Discriminator, PatchDiscriminator, StyleDiscriminator
from fqgan_jax.models.far import FAR
from fqgan_jax.models.fields import (
    build_module,
    downsampling,
    identifying_fields,
    model_kind,
    model_kinds,
    module_fields,
)
from fqgan_jax.models.fqgan import FQGAN, FQGANOutput
from fqgan_jax.models.heads import Head, HeadSizes
from fqgan_jax.models.quantizers import Quantizer, QuantizerOutput, QuantizerSizes
from fqgan_jax.models.sampling import sample_codes
from fqgan_jax.models.sampling_options import SamplingOptions, sampling_options

__all__ = [
    "FAR",
    "FQGAN",
    "Discriminator",
    "FQGANOutput",
    "Head",
    "HeadSizes",
    "PatchDiscriminator",
    "Quantizer",
    "QuantizerOutput",
    "QuantizerSizes",
    "SamplingOptions",
    "StyleDiscriminator",
    "build_module",
    "downsampling",
    "identifying_fields",
    "model_kind",
    "model_kinds",
    "module_fields",
    "sample_codes",
    "sampling_options",
]
