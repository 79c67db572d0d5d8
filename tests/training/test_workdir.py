"""Whether a run may continue in a work folder; if not, nothing in it changes."""

import json
import shutil
from pathlib import Path

import pytest
from support.tiny_configs import tiny_generator_config, tiny_tokenizer_config

from fqgan_jax.config import from_json, to_json
from fqgan_jax.errors import UserError
from fqgan_jax.training import Task, train
from fqgan_jax.training.checkpointing import Checkpoints
from fqgan_jax.training.from_config import learning_rates
from fqgan_jax.training.workdir import check_learning_rates, check_workdir, complete_config, saved_config


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.fixture
def copied_tokenizer(trained_tokenizer, tmp_path):
    return shutil.copytree(trained_tokenizer, tmp_path / "tokenizer")


@pytest.fixture
def copied_generator(trained_generator, tmp_path):
    return shutil.copytree(trained_generator, tmp_path / "generator")


def test_work_folder_of_another_config_is_left_alone(copied_tokenizer):
    before = contents(copied_tokenizer)
    with pytest.raises(UserError, match=r"seed 0 -> 1"):
        train(tiny_tokenizer_config("seed=1"), copied_tokenizer)
    assert contents(copied_tokenizer) == before


def test_work_folder_of_a_model_for_other_codes_is_left_alone(copied_generator):
    path = copied_generator / "model.json"
    description = json.loads(path.read_text())
    description["tokenizer"], description["fields"]["codebook_size"] = "another", 64
    path.write_text(json.dumps(description))
    before = contents(copied_generator)
    with pytest.raises(UserError, match=r"another model \(codebook_size 64 -> 32, tokenizer 'another' -> "):
        train(saved_config(copied_generator), copied_generator)
    assert contents(copied_generator) == before


def test_nothing_is_written_before_the_state_is_restored(copied_tokenizer, monkeypatch):
    def fail(self, abstract):
        raise ValueError("shapes differ")

    monkeypatch.setattr(Checkpoints, "restore", fail)
    before = contents(copied_tokenizer)
    with pytest.raises(ValueError, match="shapes differ"):
        train(tiny_tokenizer_config("train.log_every=1"), copied_tokenizer)
    assert contents(copied_tokenizer) == before


def test_number_of_steps_on_which_past_learning_rates_depend_is_refused(copied_tokenizer):
    before = contents(copied_tokenizer)
    message = r"has made 4 of train.steps=4.*with train.steps=8 the learning_rate of step 1 would have been .*not"
    with pytest.raises(UserError, match=message):
        train(tiny_tokenizer_config("train.steps=8"), copied_tokenizer)
    assert contents(copied_tokenizer) == before


BOTH_PLAYERS = (
    *("optimizer.schedule=constant", "adversarial.optimizer.schedule=cosine"),
    *("adversarial.discriminator=patch", "data.image_size=32"),
)


class Schedules(Task):
    """Nothing but the schedules of both players."""

    def learning_rates(self, num_steps):
        return learning_rates(self.config, num_steps)


@pytest.mark.parametrize(
    ("fields", "step", "refused"),
    [
        (("optimizer.schedule=constant",), 4, ""),
        (("optimizer.schedule=constant", "optimizer.warmup_steps=3"), 4, ""),
        (("optimizer.schedule=cosine",), 0, ""),  # no step made yet
        (("optimizer.schedule=cosine", "optimizer.warmup_steps=3"), 3, ""),  # so far all would have been the same
        (("optimizer.schedule=cosine", "optimizer.warmup_steps=1"), 3, "the learning_rate of step 2"),
        (
            BOTH_PLAYERS,
            2,
            "the discriminator_learning_rate of step 1",
        ),
    ],
)
@pytest.mark.parametrize("steps", [3, 8])
def test_training_can_be_extended_if_no_past_learning_rate_depends_on_it(tmp_path, *, fields, step, refused, steps):
    (tmp_path / "config.json").write_text(to_json(tiny_tokenizer_config(*fields)))
    task = Schedules(tiny_tokenizer_config(*fields, f"train.steps={steps}"), 1)
    if not refused:
        check_learning_rates(task, tmp_path, step)
        return
    with pytest.raises(UserError, match=refused):
        check_learning_rates(task, tmp_path, step)


@pytest.mark.slow
def test_a_run_of_constant_rate_is_extended_to_what_it_would_have_been(tmp_path):
    import jax
    import numpy as np

    config = tiny_tokenizer_config("optimizer.schedule=constant")
    short = tiny_tokenizer_config("optimizer.schedule=constant", "train.steps=2")
    train(short, tmp_path / "extended")
    extended, whole = train(config, tmp_path / "extended"), train(config, tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, extended, whole)


def without(config, names):
    """The config as a version saved it that did not have these fields."""
    old = from_json(to_json(config))
    for name in names:
        *parents, last = name.split(".")
        parent = old
        for each in parents:
            parent = parent[each]
        del parent[last]
    return old


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (
            tiny_tokenizer_config,
            ("model.normalized", "train.max_skipped", "data.full_decode", "reseed_after", "evaluation"),
        ),
        (tiny_generator_config, ("class_dropout", "model.swiglu_multiple", "sample", "mesh.tensor", "evaluation")),
    ],
)
def test_fields_that_a_saved_config_lacks_take_their_defaults(config, names, tmp_path):
    given = config("model.swiglu_multiple=256") if "model.swiglu_multiple" in names else config()
    old = without(given, names)
    assert complete_config(old) == complete_config(given) == from_json(to_json(given))
    (tmp_path / "config.json").write_text(to_json(old))
    for each in (given, old):
        check_workdir(each, tmp_path)
    assert saved_config(tmp_path) == complete_config(given)
    given.optimizer.learning_rate = 0.5
    with pytest.raises(UserError, match=r"optimizer\.learning_rate 0\.00"):
        check_workdir(given, tmp_path)


def test_a_run_of_an_earlier_version_continues(copied_tokenizer):
    old = without(
        saved_config(copied_tokenizer), ("model.normalized", "train.max_skipped", "reseed_after", "evaluation")
    )
    (copied_tokenizer / "config.json").write_text(to_json(old))
    assert int(train(old, copied_tokenizer).step) == 4
    assert saved_config(copied_tokenizer).train.max_skipped == 100


def test_fields_that_change_no_number_may_change(copied_tokenizer):
    free = ("data.num_threads=1", "train.log_every=1", "evaluation.pictures=3")
    state = train(tiny_tokenizer_config(*free), copied_tokenizer)
    assert int(state.step) == 4
    assert saved_config(copied_tokenizer).train.log_every == 1
