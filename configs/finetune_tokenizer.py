"""Recipes that start from a tokenizer that exists: a work folder, an export or a published file.

    fqgan train --config configs/finetune_tokenizer.py:recipe=images --workdir runs/mine \\
        --config.train.init_from=fqgan_dual_ds16.pt --config.data.source=FOLDER
    fqgan train --config configs/finetune_tokenizer.py:recipe=resolution,size=384 --workdir runs/mine_384 ...
    fqgan train --config configs/finetune_tokenizer.py:recipe=decoder --workdir runs/post ...
    fqgan train --config configs/finetune_tokenizer.py:recipe=grow,k=3 --workdir runs/triple ...

images: everything learns from your images, at a tenth of the rate. resolution: another size of images, to whose grid
the learned positions are resized. decoder: encoder and codebooks stay, the decoder learns to bear wrong codes, such as
a generator draws (arXiv 2509.12474, 2503.08354). grow: one sub-codebook more than the given model has; the others stay.
"""

import importlib.util
from pathlib import Path

from fqgan_jax.config import parse_arguments, whole
from fqgan_jax.errors import UserError

RECIPES = ("images", "resolution", "decoder", "grow")


def get_config(arguments: str = ""):
    """Arguments: recipe, k (sub-codebooks), f (downsampling), size (side of the images)."""
    arguments = parse_arguments(arguments, recipe="images", k=whole(2, 1, 64), f=16, size=256)
    recipe = arguments["recipe"]
    if recipe not in RECIPES:
        raise UserError(f"There is no recipe {recipe!r}: choose one of {', '.join(RECIPES)}.")
    config = _published(f"k={arguments['k']},f={arguments['f']}")
    config.data.source = "photos"
    config.data.image_size = arguments["size"]
    config.optimizer.learning_rate = 2e-5
    config.optimizer.warmup_steps = 500
    config.optimizer.schedule = "cosine"
    config.optimizer.floor = 0.1
    config.adversarial.optimizer.learning_rate = 2e-5
    # The discriminator may be new: it learns before the tokenizer hears of it.
    config.adversarial.discriminator_start = 1
    config.adversarial.start = 2000
    config.train.steps = 20_000
    if recipe == "decoder":
        config.train.freeze = ("encoder", "heads", "quantizer", r"feature_predictors_\d+")
        config.perturbation.tokens = 0.5
    return config


def _published(arguments: str):
    """The published tokenizer's config."""
    spec = importlib.util.spec_from_file_location("published", Path(__file__).with_name("tokenizer_imagenet.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arguments)
