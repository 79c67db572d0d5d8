"""Runs that begin from other weights."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file
from support import golden_data
from support.tiny_configs import PLAIN, tiny_generator_config, tiny_tokenizer_config

import fqgan_jax
from fqgan_jax.checkpoints import load_inference_params
from fqgan_jax.config import load_config
from fqgan_jax.errors import UserError
from fqgan_jax.export.exporting import export_checkpoint
from fqgan_jax.training import train
from fqgan_jax.training.tokenizer_task import TokenizerTask
from fqgan_jax.training.warm_start import warm_start

ADVERSARIAL = ("adversarial.discriminator=patch", "adversarial.width=8", "adversarial.start=1", "data.image_size=32")
ONE_STEP = ("train.steps=1", "train.evaluate_every=9", "train.checkpoint_every=1", "train.log_every=1")
FROZEN_ALL_BUT = "train.freeze=('encoder','heads','quantizer','decoder')"


def flat(params):
    return {name: np.asarray(leaf) for name, leaf in flatten_dict(params, sep="/").items()}


@pytest.fixture(scope="module")
def given(make_once):
    """A tiny tokenizer without adapters, after two steps."""
    config = tiny_tokenizer_config(*PLAIN, "train.steps=2", "train.checkpoint_every=2", "optimizer.ema_decay=0.5")
    return make_once("warm_start", lambda folder: train(config, folder))


def started(given, tmp_path, *overrides, k=2):
    """State after one step whose rate is zero, and what was recorded."""
    fields = (f"train.init_from={given}", *ONE_STEP, "optimizer.learning_rate=0.0", *overrides)
    state = train(tiny_tokenizer_config(*fields, k=k), tmp_path)
    return state, json.loads((tmp_path / "init_from.json").read_text())


@pytest.mark.slow
def test_weights_are_those_of_the_other_run(given, tmp_path):
    state, record = started(given, tmp_path, *PLAIN)
    expected = flat(load_inference_params(given)[0])  # its moving average, since this run keeps none
    found = flat(state.params)
    assert found.keys() == expected.keys()
    for name, leaf in found.items():
        np.testing.assert_array_equal(leaf, expected[name], err_msg=name)
    assert record["fits"]["tokenizer"] == {"resized": [], "partly": [], "fresh": [], "share": 1.0}


@pytest.mark.slow
def test_another_sub_codebook_begins_anew_and_the_others_stay(given, tmp_path):
    split = ("model.factorization=split", "teachers=(None,None,None)", "model.z_channels=24")
    with pytest.raises(UserError, match=r"does not fit"):  # another width of the decoder's input, a small model
        started(given, tmp_path / "wide", *split, "model.base_width=16", k=3)
    state, record = started(given, tmp_path, *split, k=3)
    found, theirs = flat(state.params), flat(load_inference_params(given)[0])
    np.testing.assert_array_equal(found["quantizer/codebooks"][:2], theirs["quantizer/codebooks"])
    np.testing.assert_array_equal(found["heads/conv_out/kernel"][..., :16], theirs["heads/conv_out/kernel"])
    np.testing.assert_array_equal(found["encoder/conv_in/kernel"], theirs["encoder/conv_in/kernel"])
    fit = record["fits"]["tokenizer"]
    assert {"quantizer/codebooks", "heads/conv_out/kernel", "from_codes/kernel"} <= set(fit["partly"])
    assert fit["fresh"] == []


@pytest.mark.slow
def test_positions_are_resized_to_another_grid(trained_tokenizer, tmp_path):
    state, record = started(trained_tokenizer, tmp_path, "data.image_size=24")
    found, theirs = flat(state.params), flat(load_inference_params(trained_tokenizer)[0])
    (name,) = (name for name in found if name.startswith("heads") and name.endswith("positions"))
    expected = [jax.image.resize(table.reshape(8, 8, -1), (12, 12, table.shape[-1]), "cubic") for table in theirs[name]]
    np.testing.assert_allclose(found[name], np.reshape(expected, found[name].shape), rtol=1e-6)
    resized = record["fits"]["tokenizer"]["resized"]
    assert name in resized
    assert any("feature_predictors" in path for path in resized)
    (predictor,) = (path for path in resized if "feature_predictors" in path)
    np.testing.assert_array_equal(found[predictor][0], theirs[predictor][0])  # the class token's


@pytest.mark.slow
def test_fixed_parameters_stay_and_have_no_optimizer_state(given, tmp_path):
    fields = (*PLAIN, f"train.init_from={given}", "train.freeze=('encoder','heads','quantizer')", "train.steps=4")
    state = train(tiny_tokenizer_config(*fields), tmp_path / "whole")
    found, theirs = flat(state.params), flat(load_inference_params(given)[0])
    moved = {name for name, leaf in found.items() if np.any(leaf != theirs[name])}
    assert moved == {name for name in found if name.startswith(("decoder", "from_codes"))}
    sizes = [leaf.size for leaf in jax.tree.leaves(state.opt_state)]
    trained = sum(found[name].size for name in moved)
    assert sum(sizes) <= 2 * trained + 10  # two moments and counters

    train(tiny_tokenizer_config(*fields), tmp_path / "resumed", stop_after=2)
    resumed = train(tiny_tokenizer_config(*fields), tmp_path / "resumed")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(resumed), jax.device_get(state))


@pytest.mark.slow
def test_a_run_goes_on_only_with_what_it_began_with(given, trained_tokenizer, tmp_path):
    fields = (*PLAIN, *ONE_STEP, "train.freeze=('encoder',)")
    train(tiny_tokenizer_config(*fields, f"train.init_from={given}"), tmp_path)
    with pytest.raises(UserError, match=r"train.init_from"):
        train(tiny_tokenizer_config(*fields), tmp_path)
    with pytest.raises(UserError, match=r"train.freeze"):
        train(tiny_tokenizer_config(*PLAIN, *ONE_STEP, f"train.init_from={given}"), tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("train.freeze=('encodr',)",), r"train.freeze names 'encodr'.*did you mean 'encoder'"),
        (("train.freeze=('.*',)",), r"leaves nothing to train"),
        (("train.init_from=nowhere",), r"There is no checkpoint nowhere"),
    ],
)
def test_what_cannot_be_is_said(fields, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train(tiny_tokenizer_config(*PLAIN, *fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_generator_takes_over_what_does_not_depend_on_its_classes(
    trained_generator, trained_tokenizer, code_cache, tmp_path
):
    fields = (f"data.codes={code_cache}", f"train.init_from={trained_generator}", *ONE_STEP)
    state = train(tiny_generator_config(*fields, "optimizer.learning_rate=0.0", "optimizer.weight_decay=0.0"), tmp_path)
    expected = flat(load_inference_params(trained_generator)[0])
    for name, leaf in flat(state.params).items():
        np.testing.assert_array_equal(leaf, expected[name], err_msg=name)
    with pytest.raises(UserError, match=r"holds a tokenizer: a generator can start from a generator alone"):
        train(tiny_generator_config(f"data.codes={code_cache}", f"train.init_from={trained_tokenizer}"), tmp_path / "x")


@pytest.mark.slow
@pytest.mark.torch
def test_a_published_file_with_discriminator_and_average_goes_on(tmp_path):
    pytest.importorskip("torch")
    run, out = tmp_path / "run", tmp_path / "export"
    base = (*PLAIN, *ADVERSARIAL, "train.steps=2", "train.checkpoint_every=2", "train.evaluate_every=9")
    first = train(tiny_tokenizer_config(*base, "optimizer.ema_decay=0.5"), run)
    export_checkpoint(run, "torch", out, with_ema=True, with_discriminator=True)
    (file,) = out.glob("*.pt")
    fields = (*PLAIN, *ADVERSARIAL, *ONE_STEP, "optimizer.learning_rate=0.0", "adversarial.optimizer.learning_rate=0.0")
    state = train(tiny_tokenizer_config(*fields, f"train.init_from={file}", "optimizer.ema_decay=0.5"), tmp_path / "on")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), jax.device_get(first.params))
    same = jax.tree.map(
        lambda a, b: np.allclose(a, b, rtol=1e-6),
        jax.device_get(state.adversary.params),
        jax.device_get(first.adversary.params),
    )
    assert all(jax.tree.leaves(same))
    averages = load_inference_params(run)[0]
    # One step with a rate of zero moves the average half way to the parameters.
    expected = jax.tree.map(lambda a, p: (np.asarray(a) + np.asarray(p)) / 2, averages, jax.device_get(first.params))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), jax.device_get(state.ema), expected
    )
    assert fqgan_jax.load_tokenizer(tmp_path / "on").image_size == 32


@pytest.mark.slow
def test_the_published_dual_tokenizer_is_what_a_run_begins_with(tmp_path):
    state_dict = golden_data.state_dict("dual_f16")
    file = tmp_path / "dual.safetensors"
    save_file(state_dict, file)
    fields = ("model.dtype=float32", "frozen_dtype=float32", "adversarial.discriminator=none")
    config = load_config("configs/finetune_tokenizer.py", [f"--config.{field}" for field in fields])
    task = TokenizerTask(config, 1)
    shapes = jax.eval_shape(lambda: task.init(jax.random.key(0)))
    # Zeros instead of random numbers, whose program takes minutes to compile.
    state, started = warm_start(
        jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes),
        str(file),
        task.warm_parts(),
        workdir=tmp_path,
    )
    fit = started.fits["tokenizer"]
    assert (fit.fresh, fit.partly, fit.resized, fit.share) == ((), (), (), 1.0)
    golden = golden_data.arrays("tokenizer_dual_f16")
    codes = np.stack([golden[f"indices_{name}"] for name in ("vis", "sem")], axis=-1)
    decode = jax.jit(partial(task.module.apply, method="decode"))
    reconstruction = decode({"params": state.params}, codes)
    assert golden_data.relative_error(reconstruction, golden["reconstruction"]) < 1e-4
