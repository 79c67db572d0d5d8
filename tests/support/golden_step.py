"""The small tokenizer of the golden trajectories with everything that takes part in its training step."""

import re
from functools import cache

import numpy as np
import optax

from fqgan_jax.config import tokenizer_defaults
from fqgan_jax.interop import import_discriminator, import_params, infer_tokenizer_fields
from fqgan_jax.models.discriminators import PatchDiscriminator
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.pretrained.lpips import LPIPS, import_lpips
from fqgan_jax.training.adversarial import AdversarialTraining
from fqgan_jax.training.state import Adversary, TrainState, create_state
from fqgan_jax.training.tokenizer_step import TokenizerBatch, TokenizerTraining
from support import golden_data, golden_vgg

SIZE = 64


def loss_weights() -> dict[str, float]:
    """The published weights."""
    weights = tokenizer_defaults().loss.to_dict()
    del weights["feature_group"], weights["perceptual_network"]
    return weights


@cache
def module(**fields) -> FQGAN:
    shapes = golden_data.shapes("trajectory")
    return FQGAN(**(infer_tokenizer_fields(shapes, adapter_heads=4, feature_heads=4) | fields))


def perceptual_distance(params, reconstruction, images):
    return LPIPS().apply({"params": params}, reconstruction, images)


def training(tx: optax.GradientTransformation, *, start_step: int, adaptive: bool, **fields) -> TokenizerTraining:
    """The whole published objective; `fields` change the tokenizer's."""
    return TokenizerTraining(
        module=module(**fields),
        tx=tx,
        loss_weights=loss_weights(),
        loss_options={"feature_group": 0, "perceptual_network": "lpips"},
        perceptual_distance=perceptual_distance,
        adversarial=AdversarialTraining(module=PatchDiscriminator(), tx=tx, start_step=start_step, adaptive=adaptive),
    )


@cache
def params() -> tuple[dict, dict]:
    """Of the tokenizer and of the discriminator."""
    shapes = golden_data.shapes("discriminators")
    prefix = "discriminator."
    discriminator = {
        name.removeprefix(prefix): golden_data.weight(name, shape)
        for name, shape in shapes.items()
        if name.startswith(prefix)
    }
    tokenizer = import_params(golden_data.state_dict("trajectory"), module())
    return tokenizer, import_discriminator(discriminator, PatchDiscriminator(), SIZE)


def state(training: TokenizerTraining) -> TrainState:
    """Before the first step."""
    tokenizer, discriminator = params()
    adversary = Adversary(
        params=discriminator,
        opt_state=training.adversarial.tx.init(discriminator),
        average_logits=np.zeros(2, np.float32),
    )
    return create_state(tokenizer, training.tx, with_ema=False, adversary=adversary)


@cache
def frozen() -> dict:
    return {"perceptual": import_lpips(golden_vgg.features(), golden_vgg.heads())}


def batch(golden: dict, i: int) -> TokenizerBatch:
    """Images and the teacher's features of each sub-codebook at step i of a golden file, which names their seeds.

    Images are written as "golden_image((4, 64, 64, 3), 50 + i)", features as "Generator(PCG64([0, 50+i]))…". The file
    of gradients names no features: theirs are those of the set's and of the image's seed.
    """
    text = golden.get("images") or golden["image"]
    image_seed = int(re.fullmatch(r"golden_image\(\(4, 64, 64, 3\), (\d+)(?: \+ i)?\)", text)[1])
    found = re.match(r"Generator\(PCG64\(\[(\d+), (\d+)\+i\]\)\)", golden.get("features", ""))
    first, second = map(int, found.groups()) if found else (golden["seed"], image_seed)
    rng = np.random.Generator(np.random.PCG64([first, second + i]))
    features = rng.standard_normal((4, 48)).astype(np.float32)
    images = golden_data.image((4, SIZE, SIZE, 3), of_seed=image_seed + i)
    return TokenizerBatch(images=images, targets=[None, features])
