"""The small tokenizer of the golden trajectories with everything that takes part in its training step."""

from functools import cache, partial

import numpy as np
import optax

from fqgan_jax.config import tokenizer_defaults
from fqgan_jax.interop.published import import_discriminator, import_tokenizer, tokenizer_config
from fqgan_jax.losses.tokenizer_losses import perceptual_loss
from fqgan_jax.models.discriminators import PatchDiscriminator
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.pretrained.lpips import LPIPS, import_lpips
from fqgan_jax.training.state import Adversary, TrainState, create_state
from fqgan_jax.training.tokenizer_step import Players
from support import golden_data, golden_vgg

SIZE = 64


def config(**fields):
    """The whole published objective from step 2 on; `fields` are dotted, with __ for the dot."""
    config = tokenizer_defaults()
    config.adversarial.start = 2
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


@cache
def module(**fields) -> FQGAN:
    shapes = golden_data.shapes("trajectory")
    return FQGAN(**(tokenizer_config(shapes, adapter_heads=4, feature_heads=4) | fields))


def players(optimizer: optax.GradientTransformation, **fields) -> Players:
    """`fields` change the tokenizer's."""
    perceptual = partial(perceptual_loss, LPIPS())
    return Players(module(**fields), optimizer, PatchDiscriminator(), optimizer, perceptual)


@cache
def params() -> tuple[dict, dict]:
    """Of the tokenizer and of the discriminator."""
    shapes = golden_data.shapes("discriminators")
    prefix = "discriminator."
    theirs = {
        name.removeprefix(prefix): golden_data.weight(name, shape)
        for name, shape in shapes.items()
        if name.startswith(prefix)
    }
    ours = import_tokenizer(golden_data.state_dict("trajectory"), module())
    return ours, import_discriminator(theirs, PatchDiscriminator(), SIZE)


def state(players: Players) -> TrainState:
    """Before the first step."""
    ours, theirs = params()
    adversary = Adversary(theirs, players.discriminator_optimizer.init(theirs), np.zeros(2, np.float32))
    return create_state(ours, players.optimizer, 0.0, adversary)


@cache
def frozen() -> dict:
    return {"perceptual": import_lpips(golden_vgg.features(), golden_vgg.heads())}


def batch(i: int) -> tuple[np.ndarray, list]:
    """Images and the teacher's features of each sub-codebook at step i of a trajectory."""
    images = golden_data.image((4, SIZE, SIZE, 3), 50 + i)
    rng = np.random.Generator(np.random.PCG64([golden_data.seed(), 50 + i]))
    return images, [None, rng.standard_normal((4, 48)).astype(np.float32)]
