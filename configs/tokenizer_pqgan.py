"""Product quantization with many small codebooks on ImageNet at 256x256 (PQGAN, arXiv 2510.03191): K = 64.

    fqgan train --config configs/tokenizer_pqgan.py:f=16 --workdir runs/pqgan --config.data.source=/data/imagenet

f=8 has 512 entries in each sub-codebook (576 bits a position), f=16 has 128 (448 bits). Channels are split, no
sub-codebook has a teacher, and disentanglement is off.
"""

from fqgan_jax.config import parse_arguments, tokenizer_defaults
from fqgan_jax.errors import UserError

MULTIPLIERS = {8: (1, 2, 2, 4), 16: (1, 1, 2, 2, 4)}
ENTRIES = {8: 512, 16: 128}


def get_config(arguments: str = ""):
    """Arguments: f (downsampling, 8 or 16)."""
    f = parse_arguments(arguments, f=16)["f"]
    if f not in MULTIPLIERS:
        raise UserError(f"f={f} is not published: choose 8 or 16, or set model.multipliers yourself.")
    config = tokenizer_defaults()
    config.model.num_codebooks = 64
    config.model.codebook_size = ENTRIES[f]
    config.model.code_dim = 2
    config.model.factorization = "split"
    config.model.z_channels = 128
    config.model.multipliers = MULTIPLIERS[f]
    config.teachers = (None,) * 64
    config.loss.disentanglement = 0.0

    config.data.source = "imagenet"
    config.train.steps = 200_000
    return config
