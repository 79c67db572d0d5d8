"""Configs: arguments, overrides, sentences about mistakes."""

import jax
import jax.numpy as jnp
import pytest

from fqgan_jax.config import from_json, load_config, to_json
from fqgan_jax.errors import UserError
from fqgan_jax.models.causal_layers import swiglu_width
from fqgan_jax.models.fields import build_module
from fqgan_jax.training.from_config import generator_fields, tokenizer_fields

TOKENIZER = "configs/tokenizer_imagenet.py"


def test_arguments_and_overrides():
    config = load_config(f"{TOKENIZER}:k=3,f=8", ["--config.optimizer.learning_rate=1e-3", "--config.seed=7"])
    assert config.model.num_codebooks == 3
    assert config.model.multipliers == (1, 2, 2, 4)
    assert config.optimizer.learning_rate == 1e-3
    assert config.seed == 7
    assert load_config(TOKENIZER).seed == 0


def test_json_round_trip():
    config = load_config(f"{TOKENIZER}:k=3")
    assert from_json(to_json(config)).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("file", "overrides", "message"),
    [
        ("configs/nothing.py", [], "no config file configs/nothing.py.*configs/demo_tokenizer.py"),
        (f"{TOKENIZER}:x=3", [], "no argument 'x'"),
        (f"{TOKENIZER}:k=three", [], "not of type int"),
        (f"{TOKENIZER}:f=7", [], "choose 8 or 16"),
        (TOKENIZER, ["--config.optimizer.learning_rat=1"], "did you mean 'optimizer.learning_rate'"),
        (TOKENIZER, ["--config.batch_size=1"], "did you mean 'data.batch_size'"),
        (TOKENIZER, ["--config.seed=many"], "wrong type"),
    ],
)
def test_mistakes_are_explained(file, overrides, message):
    with pytest.raises(UserError, match=message):
        load_config(file, overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.image_size=100"], "100 is not divisible by the tokenizer's downsampling f=16"),
        (["model.num_codebooks=3"], r"names 2 teacher\(s\) for model.num_codebooks=3"),
        (["teachers=(None,'dino')"], r"teachers is 'dino': there is no teacher 'dino'.*dinov2"),
        (["model.factorization=split"], "set model.z_channels=16"),
        (["model.factorization=splat"], "model.factorization is 'splat'.*did you mean 'split'"),
        (["model.adapter_heads=7"], "not divisible by model.adapter_heads=7"),
    ],
)
def test_impossible_sizes_are_explained(overrides, message):
    config = load_config(TOKENIZER, [f"--config.{override}" for override in overrides])
    with pytest.raises(UserError, match=message):
        tokenizer_fields(config)


@pytest.mark.parametrize("arguments", ["", ":k=1", ":k=3,f=8", ":k=8"])
def test_tokenizer_configs_build(arguments):
    fields = tokenizer_fields(load_config(TOKENIZER + arguments))
    assert build_module("tokenizer", fields).grid == (256 // 2 ** (len(fields["multipliers"]) - 1),) * 2


@pytest.mark.parametrize(
    ("size", "depth", "millions"), [("B", 24, 417), ("L", 36, 901), ("XL", 48, 1579), ("3B", 24, 3720)]
)
def test_generator_configs_build(size, depth, millions):
    codes = {"num_codebooks": 2, "codebook_size": 16384, "num_classes": 1000, "grid": (16, 16)}
    config = load_config(f"configs/generator_imagenet.py:size={size}")
    module = build_module("generator", generator_fields(config, **codes))
    assert module.depth == depth
    inputs = jax.ShapeDtypeStruct((1, 256, 2), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.int32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    D, hidden = module.width, swiglu_width(module.width, 256)
    blocks = (module.depth + module.head_depth) * (4 * D * D + 3 * D * hidden + 2 * D)
    tables = 1001 * D + 2 * 16384 * D + (2 * D + 1) * D + D + 2 * 16384 * D
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == blocks + tables
    assert round((blocks + tables) / 1e6) == millions
    with pytest.raises(UserError, match="grid of at least 6 positions"):
        generator_fields(config, **codes | {"num_codebooks": 7, "grid": (1, 4)})
