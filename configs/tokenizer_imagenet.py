"""The published tokenizer on ImageNet at 256x256, for any number of sub-codebooks.

    fqgan train --config configs/tokenizer_imagenet.py:k=2,f=16 --workdir runs/dual \\
        --config.data.source=/data/imagenet

Bits per position: 14 K. k=2 is the published dual tokenizer, k=3 the triple one; f is 16 or 8.
"""

from fqgan_jax.config import parse_arguments, tokenizer_defaults, whole
from fqgan_jax.errors import UserError
from fqgan_jax.models.heads import heads

# Published for the dual and the triple tokenizer.
TEACHERS = {2: (None, "clip-vit-large-patch14"), 3: (None, "dinov2-small", "clip-vit-base-patch16")}
MULTIPLIERS = {8: (1, 2, 2, 4), 16: (1, 1, 2, 2, 4)}


def get_config(arguments: str = ""):
    """Arguments: k (sub-codebooks), f (downsampling, 8 or 16), factorization ("adapters", or "split" for large k)."""
    arguments = parse_arguments(arguments, k=whole(2, 1, 64), f=16, factorization="adapters")
    if arguments["f"] not in MULTIPLIERS:
        raise UserError(f"f={arguments['f']} is not published: choose 8 or 16, or set model.multipliers yourself.")
    config = tokenizer_defaults()
    config.model.num_codebooks = arguments["k"]
    config.model.factorization = arguments["factorization"]
    z_channels = heads[arguments["factorization"]].required_z_channels(arguments["k"], config.model.code_dim)
    if z_channels is not None:
        config.model.z_channels = z_channels
    config.model.multipliers = MULTIPLIERS[arguments["f"]]
    # The first sub-codebook stays visual, the next ones are semantic.
    config.teachers = TEACHERS.get(arguments["k"], (*TEACHERS[3], *[None] * arguments["k"])[: arguments["k"]])

    config.data.source = "imagenet"
    config.train.steps = 200_000
    return config
