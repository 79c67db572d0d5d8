"""A small dual tokenizer for 32x32 crops of the bundled photographs, on two CPU cores.

fqgan train --config configs/demo_tokenizer.py --workdir runs/tokenizer
"""

from fqgan_jax.config import parse_arguments, tokenizer_defaults, whole


def get_config(arguments: str = ""):
    """Arguments: k (sub-codebooks), teacher (of the last sub-codebook if there are several, or "none")."""
    arguments = parse_arguments(arguments, k=whole(2, 1, 64), teacher="hog")
    config = tokenizer_defaults()
    config.model.num_codebooks = arguments["k"]
    teacher = arguments["teacher"] if arguments["teacher"] != "none" and arguments["k"] > 1 else None
    config.teachers = (None,) * (arguments["k"] - 1) + (teacher,)
    config.frozen_dtype = "float32"

    config.model.codebook_size = 256
    config.model.base_width = 16
    config.model.multipliers = (1, 1, 2)  # f = 4
    config.model.num_blocks = 1
    config.model.norm_groups = 4
    config.model.z_channels = 64
    config.model.adapter_depth = 1
    config.model.adapter_heads = 4
    config.model.feature_depth = 1
    config.model.feature_heads = 4
    config.model.dtype = "float32"

    # Pixels weigh more than in the paper, which also has a perceptual loss and a discriminator.
    config.loss.reconstruction = 5.0
    config.loss.perceptual = 0.0
    config.adversarial.discriminator = "none"

    config.data.image_size = 32
    config.data.batch_size = 16
    config.data.num_threads = 2

    config.optimizer.learning_rate = 3e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50

    config.train.steps = 1200
    config.train.log_every = 50
    config.train.evaluate_every = 600
    config.train.checkpoint_every = 600
    return config
