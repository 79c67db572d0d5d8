"""FAR on ImageNet codes: size=B (24 layers, width 1024) and L (36, 1280) as published, XL (48, 1536) and 3B (24, 3200).

    fqgan tokenize --checkpoint runs/dual --data /data/imagenet --out runs/codes
    fqgan train --config configs/generator_imagenet.py:size=B --workdir runs/far_b \\
        --config.data.codes=runs/codes --config.sample.tokenizer=runs/dual
"""

from fqgan_jax.config import generator_defaults, parse_arguments
from fqgan_jax.errors import UserError

SIZES = {
    "B": {"depth": 24, "num_heads": 16, "width": 1024, "head_depth": 3},
    "L": {"depth": 36, "num_heads": 20, "width": 1280, "head_depth": 4},
    # Not published: LlamaGen's shapes (Sun et al. 2024, arXiv 2406.06525).
    "XL": {"depth": 48, "num_heads": 24, "width": 1536, "head_depth": 4},
    "3B": {"depth": 24, "num_heads": 32, "width": 3200, "head_depth": 4},
}


def get_config(arguments: str = ""):
    """Arguments: size (B, L, XL or 3B)."""
    size = parse_arguments(arguments, size="B")["size"]
    if size not in SIZES:
        raise UserError(f"There is no FAR of size {size!r}: choose {', '.join(SIZES)}.")
    config = generator_defaults()
    config.model.update(SIZES[size])
    # 300 epochs of 1.28 million images at batch 256.
    config.train.steps = 1_500_000
    return config
