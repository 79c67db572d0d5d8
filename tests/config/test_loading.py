"""Configs: arguments, overrides, sentences about mistakes."""

import pytest

from fqgan_jax.config import from_json, load_config, to_json, tokenizer_defaults
from fqgan_jax.errors import UserError
from fqgan_jax.models.fields import build_module
from fqgan_jax.training.from_config import check_periods, generator_fields, tokenizer_fields

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
        (["model.num_codebooks=65"], "1 to 64"),
        (["data.largest_skipped_fraction=1.5"], "data.largest_skipped_fraction=1.5 is not a fraction"),
        (["data.num_workers=-1"], r"choose 0 \(threads alone\)"),
        (["data.num_threads=0"], "choose 1 or more"),
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


@pytest.mark.parametrize("size", ["B", "L"])
def test_generator_configs_build(size):
    codes = {"num_codebooks": 2, "codebook_size": 16384, "num_classes": 1000, "grid": (16, 16)}
    config = load_config(f"configs/generator_imagenet.py:size={size}")
    assert build_module("generator", generator_fields(config, **codes)).depth == {"B": 24, "L": 36}[size]
    with pytest.raises(UserError, match="grid of at least 6 positions"):
        generator_fields(config, **codes | {"num_codebooks": 7, "grid": (1, 4)})


@pytest.mark.parametrize("name", ["steps", "log_every", "evaluate_every", "checkpoint_every"])
def test_periods_of_nothing_are_refused(name):
    train = tokenizer_defaults().train
    check_periods(train)
    train[name] = 0
    with pytest.raises(UserError, match=rf"train\.{name}=0: choose 1 or more"):
        check_periods(train)
