"""A small FAR for the demo tokenizer's codes, on two CPU cores.

    fqgan tokenize --checkpoint runs/tokenizer --data photos --out runs/codes
    fqgan train --config configs/demo_generator.py --workdir runs/generator \\
        --config.data.codes=runs/codes --config.sample.tokenizer=runs/tokenizer
"""

from fqgan_jax.config import generator_defaults


def get_config(arguments: str = ""):
    """No arguments: K, N and the grid come from the code cache."""
    config = generator_defaults()
    config.model.width = 96
    config.model.depth = 3
    config.model.num_heads = 4
    config.model.head_depth = 1
    config.model.swiglu_multiple = 32
    config.model.dtype = "float32"

    config.data.batch_size = 16
    config.data.num_threads = 2

    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50

    config.train.steps = 1300
    config.train.log_every = 50
    config.train.evaluate_every = 1300
    config.train.checkpoint_every = 650
    return config
