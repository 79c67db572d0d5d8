"""Rules of values, and the table of what each config field may be."""

import math

import numpy as np
import pytest
from ml_collections import ConfigDict

from fqgan_jax.config import check_config, generator_defaults, load_config, task_defaults, tokenizer_defaults
from fqgan_jax.config.defaults import field_rules
from fqgan_jax.config.rules import Choice, Either, Flag, Many, Nothing, Number, Text, Whole, flat
from fqgan_jax.errors import UserError

ANYTHING = (0, 1, -1, 65, 0.5, 1.0, -0.5, math.nan, math.inf, True, None, "a", "", "a\nb", (), (1, 2), (1, "a"), [3, 4])


@pytest.mark.parametrize(
    ("rule", "allowed", "sentence"),
    [
        (Whole(0, 64), {"0", "1"}, "a whole number from 0 to 64"),
        (Whole(1), {"1", "65"}, "a whole number of at least 1"),
        (Number(0, 1), {"0", "1", "0.5", "1.0"}, "a number of at least 0 and at most 1"),
        (Number(0, 1, above=True, below=True), {"0.5"}, "a number above 0 and below 1"),
        (Number(0), {"0", "1", "65", "0.5", "1.0"}, "a number of at least 0"),
        (Flag(), {"True"}, "True or False"),
        (Text(), {"'a'", "''"}, "a text in one line"),
        (Text(empty=False), {"'a'"}, "a text in one line that is not empty"),
        (Choice(("a", "b")), {"'a'"}, "one of a, b"),
        (Many(Whole()), {"()", "(1, 2)", "[3, 4]"}, "a tuple, each a whole number of at least 0"),
        (Many(Whole(), (0, 3)), {"()"}, "a tuple, 0 or 3 of them, each a whole number of at least 0"),
        (Either((Nothing(), Flag())), {"None", "True"}, "None, or True or False"),
    ],
)
def test_a_rule_allows_what_its_sentence_says(rule, allowed, sentence):
    for value in ANYTHING:
        assert rule.allows(value) == (repr(value) in allowed), value
    assert str(rule) == sentence
    with pytest.raises(UserError, match=r"^x is nan: give "):
        rule.check("x", math.nan)


def test_numpy_numbers_are_numbers():
    assert Whole().allows(np.int64(3))
    assert Number().allows(np.float32(0.5))
    assert not Whole().allows(np.float32(3))
    assert not Number().allows(np.float32("nan"))


@pytest.mark.parametrize(
    ("task", "defaults"),
    [("tokenizer", tokenizer_defaults), ("generator", generator_defaults), ("mine", task_defaults)],
)
def test_every_field_has_a_rule_that_its_default_keeps(task, defaults):
    values, rules = flat(defaults()), field_rules(task)
    assert values.keys() == rules.keys()
    for path, value in values.items():
        rules[path].check(path, value)


@pytest.mark.parametrize(
    "override",
    [
        *("optimizer.learning_rate=nan", "optimizer.learning_rate=inf", "optimizer.learning_rate=-1"),
        *("train.log_every=0", "train.checkpoint_every=0", "train.evaluate_every=0", "train.steps=-5"),
        *("optimizer.clip=-1", "optimizer.clip=0", "optimizer.ema_decay=1", "model.temperature=-0.1"),
        *("data.batch_size=0", "data.batch_size=-8", "model.adapter_heads=0", "model.num_codebooks=65"),
        *("model.num_codebooks=1000000000", "seed=-1", f"seed={2**70}", "data.source=", "loss.entropy=-1"),
        *("data.largest_skipped_fraction=1.5", "data.num_workers=-1", "data.num_threads=0", "loss.codebook=nan"),
        *("model.multipliers=(1,0)", "model.multipliers=(1,'a')", "model.dtype=float16", "teachers=(1,2)"),
        *("mesh.data=0", "mesh.fsdp=-1", "train.keep_checkpoints=0", "adversarial.ramp=0", "model.nested=(2.0,)"),
    ],
)
def test_values_outside_their_range_are_refused_with_field_value_and_range(override):
    field, _, value = override.partition("=")
    with pytest.raises(UserError, match=rf"(^{field} is .*: give |wrong type)") as error:
        load_config("configs/demo_tokenizer.py", [f"--config.{override}"])
    assert field.rpartition(".")[2] in str(error.value)
    assert value.strip("()'")[:8] in str(error.value).replace(", ", ",")


def test_fields_that_rows_add_are_checked():
    config = tokenizer_defaults()
    with config.unlocked():
        config.loss.mine = 0.5
        config.evaluation.mine = 3
    check_config(config)
    config.loss.mine = math.nan
    with pytest.raises(UserError, match=r"^runs/x: loss\.mine is nan: give a number of at least 0"):
        check_config(config, where="runs/x: ")
    check_config(ConfigDict({"runs": 3}))  # an ablation's config has no task
