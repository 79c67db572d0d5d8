"""The task of docs/extending.md does everything that the package's own tasks do."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from support.plugins import page, restored_tables

import fqgan_jax
from fqgan_jax.checkpoints import load_inference_params, read_description
from fqgan_jax.config import load_config
from fqgan_jax.errors import UserError
from fqgan_jax.models.fields import build_module
from fqgan_jax.performance.tasks import make_step, model_flops
from fqgan_jax.training import train
from fqgan_jax.training.logging import read_log


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> ConfigDict:
    """The page's config, in a file outside the package, which adds the task's rows while these tests run."""
    file = tmp_path_factory.mktemp("page") / "my_task.py"
    file.write_text(page(file.name))
    with restored_tables():
        yield small(load_config(str(file)))


def small(config: ConfigDict) -> ConfigDict:
    config.train.update(steps=4, log_every=1, evaluate_every=2, checkpoint_every=2, keep_best="-mse")
    return config


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """A work folder, and the state in the end."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, train(config, workdir)


def test_it_is_trained_logged_and_evaluated(whole):
    workdir, state = whole
    assert int(state.step) == 4
    lines = read_log(workdir)
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "validation/mse" in line] == [2, 4]
    assert lines[-2]["learning_rate"] == pytest.approx(2e-4)
    assert (workdir / "pictures" / "decoded.png").is_file()
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"2", "4"}


def test_it_is_continued_exactly(config, whole, tmp_path):
    train(config, tmp_path, stop_after=2)
    state = train(config, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, state, whole[1])


def test_its_model_is_saved_by_its_kind_and_loads(whole):
    workdir, state = whole
    description = read_description(workdir)
    assert description.kind == "autoencoder"
    module = build_module(description.kind, description.fields)
    params, step = load_inference_params(workdir)
    images = np.zeros((1, 16, 16, 3), np.float32)
    decoded = module.apply({"params": params}, images)
    np.testing.assert_array_equal(decoded, module.apply({"params": state.params}, images))
    assert step == 4


def test_its_model_loads_by_its_work_folder(whole):
    workdir, state = whole
    model = fqgan_jax.load_model(workdir)
    assert model.module.width == 16
    jax.tree.map(np.testing.assert_array_equal, model.params, state.params)


def test_plans_and_benchmarks_know_it(config):
    step = make_step(config)
    assert step.flops == model_flops(config) > 0


def test_an_unknown_task_is_named(config, tmp_path):
    unknown = config.copy_and_resolve_references()
    unknown.task = "autoencodr"
    with pytest.raises(UserError, match=r"task is 'autoencodr'.*did you mean 'autoencoder'.*--plugin FILE"):
        train(unknown, tmp_path)
