"""The loop: exact resumption, the same numbers on any number of devices, learning, runs that end with an error."""

import json
import shutil
from contextlib import ExitStack

import jax
import numpy as np
import pytest
from jax._src.array import ArrayImpl
from safetensors.numpy import load_file
from support.tiny_configs import tiny_generator_config, tiny_tokenizer_config

from fqgan_jax.api import load_tokenizer
from fqgan_jax.checkpoints import load_inference_params
from fqgan_jax.cli.main import main
from fqgan_jax.errors import UserError
from fqgan_jax.interop import import_discriminator
from fqgan_jax.models.discriminators import PatchDiscriminator
from fqgan_jax.sharding.mesh import batch_sharding, make_mesh, replicated
from fqgan_jax.sharding.rules import state_sharding
from fqgan_jax.training import loop, metrics
from fqgan_jax.training.checkpointing import Checkpoints
from fqgan_jax.training.generator_task import GeneratorTask
from fqgan_jax.training.logging import read_log
from fqgan_jax.training.loop import train
from fqgan_jax.training.tokenizer_task import TokenizerTask


def assert_identical(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_stopped_and_resumed_equals_uninterrupted(tmp_path, trained_tokenizer):
    config = tiny_tokenizer_config()
    for stop in (1, 3, None):
        state = train(config, tmp_path, stop_after=stop)
    assert int(state.step) == 4
    assert_identical(state.params, load_inference_params(trained_tokenizer)[0])
    resumed, whole = (read_log(folder)[-1] for folder in (tmp_path, trained_tokenizer))
    assert resumed["validation/psnr"] == whole["validation/psnr"]


@pytest.mark.slow
def test_generator_with_moving_average_resumes_exactly(tmp_path, code_cache):
    config = tiny_generator_config(f"data.codes={code_cache}", "optimizer.ema_decay=0.9")
    whole = train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", stop_after=3)
    resumed = train(config, tmp_path / "parts")
    assert_identical((whole.params, whole.ema, whole.opt_state), (resumed.params, resumed.ema, resumed.opt_state))
    assert_identical(load_inference_params(tmp_path / "parts")[0], whole.ema)
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (whole.params, whole.ema)), strict=True))


@pytest.mark.slow
def test_both_players_resume_exactly_and_the_discriminator_can_be_exported(tmp_path):
    fields = ("data.image_size=32", "adversarial.discriminator=patch", "adversarial.width=8", "adversarial.start=1")
    config = tiny_tokenizer_config(*fields, "adversarial.lecam=0.1", "reseed_after=2", "train.steps=3")
    whole = train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", stop_after=2)
    resumed = train(config, tmp_path / "parts")
    assert np.all(whole.adversary.average_logits != 0)
    assert_identical((whole.params, whole.adversary, whole.idle), (resumed.params, resumed.adversary, resumed.idle))

    command = ["export", "--checkpoint", str(tmp_path / "parts"), "--format", "safetensors", "--with-discriminator"]
    assert main([*command, "--out", str(tmp_path / "export")]) == 0
    module, tensors = PatchDiscriminator(width=8), load_file(tmp_path / "export" / "discriminator.safetensors")
    assert_identical(import_discriminator(tensors, module, 32), jax.device_get(whole.adversary.params))


def losses(task, axes, devices, steps=3):
    """Headline loss and gradient norm of each step on a mesh."""
    mesh = make_mesh(axes, devices)
    key = jax.random.key(0)
    # So small that fsdp splits these tiny networks too.
    sharding = state_sharding(jax.eval_shape(task.init, key), mesh, kind=task.kind, smallest_split=256)
    state = jax.jit(task.init, out_shardings=sharding)(key)
    whole, frozen = replicated(mesh), jax.device_put(task.frozen(), replicated(mesh))
    step = jax.jit(task.step, in_shardings=(sharding, whole, batch_sharding(mesh)), out_shardings=(sharding, whole))
    stream, rows = task.batches(0), []
    for _ in range(steps):
        state, collected = step(state, frozen, jax.device_put(next(stream), batch_sharding(mesh)))
        values = metrics.compute(collected)
        rows.append([values[name] for name in sorted(values)])
    return np.array(rows)


@pytest.fixture(scope="module", params=[pytest.param("tokenizer", marks=pytest.mark.slow), "generator"])
def task_and_numbers(request):
    """A task, and its numbers on one device."""
    if request.param == "tokenizer":
        task = TokenizerTask(tiny_tokenizer_config(), jax.device_count())
    else:
        codes = request.getfixturevalue("code_cache")
        task = GeneratorTask(tiny_generator_config(f"data.codes={codes}"), jax.device_count())
    return task, losses(task, {"data": 1}, jax.devices()[:1])


@pytest.mark.parametrize(
    "axes",
    [
        {"data": 4, "fsdp": 2},
        pytest.param({"data": 2, "fsdp": 2, "tensor": 2}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_eight_devices_give_the_numbers_of_one(task_and_numbers, axes):
    task, expected = task_and_numbers
    np.testing.assert_allclose(losses(task, axes, jax.devices()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_nothing_goes_to_or_from_the_host_between_log_lines(tmp_path, monkeypatch):
    guard, read, compute, compiled = ExitStack(), ArrayImpl._value, metrics.compute, loop.compiled_step
    guarded, steps = [], []

    def guarded_step(*arguments):
        step = compiled(*arguments)

        def run(*arguments):
            if steps:  # not the compilation
                guarded.append(guard.enter_context(jax.transfer_guard("disallow")))  # explicit transfers are allowed
            steps.append(step(*arguments))
            return steps[-1]

        return run

    def unguarded_compute(collected):
        guard.close()
        guarded.clear()
        return compute(collected)

    def checked_read(array):  # the guard does not see reads on CPU, where they cost no transfer
        assert not guarded, "an array is read on the host"
        return read.fget(array)

    monkeypatch.setattr(loop, "compiled_step", guarded_step)
    monkeypatch.setattr(metrics, "compute", unguarded_compute)
    monkeypatch.setattr(ArrayImpl, "_value", property(checked_read))
    train(tiny_tokenizer_config("train.log_every=4", "train.checkpoint_every=4"), tmp_path)
    assert len(steps) == 4
    assert not guarded
    guarded.append(None)
    with pytest.raises(AssertionError, match="read on the host"):
        float(jax.numpy.ones(()))
    guarded.clear()


@pytest.mark.parametrize("kind", [pytest.param("tokenizer", marks=pytest.mark.slow), "generator"])
def test_one_batch_is_learned(kind, request):
    steps = ("train.steps=120", "optimizer.schedule=constant", "optimizer.learning_rate=3e-3")
    if kind == "tokenizer":
        task = TokenizerTask(tiny_tokenizer_config(*steps), jax.device_count())
    else:
        codes = f"data.codes={request.getfixturevalue('code_cache')}"
        task = GeneratorTask(
            tiny_generator_config(*steps, codes, "model.dropout=0.0", "class_dropout=0.0"), jax.device_count()
        )
    state, batch = jax.jit(task.init)(jax.random.key(0)), next(task.batches(0))
    step, history = jax.jit(task.step), []
    for _ in range(120):
        state, collected = step(state, task.frozen(), batch)
        history.append(float(collected[task.headline].compute()))
    assert history[-1] < 0.6 * history[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        ("model.num_codebooks=8", f"teachers={(None,) * 8}"),
        (
            *("model.num_codebooks=64", f"teachers={(None,) * 64}"),
            *("model.factorization=split", "model.code_dim=2", "model.z_channels=128"),
        ),
    ],
    ids=["8 adapters", "64 split"],
)
def test_many_codebooks_train(fields):
    task = TokenizerTask(tiny_tokenizer_config(*fields, "optimizer.learning_rate=1e-3"), jax.device_count())
    state, batch = jax.jit(task.init)(jax.random.key(0)), next(task.batches(0))
    step, history = jax.jit(task.step), []
    for _ in range(20):
        state, collected = step(state, {}, batch)
        history.append(float(collected["loss"].compute()))
    assert history[-1] < history[0]
    usage = metrics.compute(collected)
    assert min(usage[f"usage/{k}"] for k in range(task.module.num_codebooks)) > 0


def test_run_that_is_never_finite_stops_and_leaves_its_checkpoints(trained_tokenizer, tmp_path, monkeypatch):
    workdir = shutil.copytree(trained_tokenizer, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "4")  # as if it had been killed after step 2
    before = load_inference_params(workdir)[0]
    restore = Checkpoints.restore

    def poisoned(self, abstract):
        state = restore(self, abstract)
        return state.replace(params=jax.tree.map(lambda leaf: leaf * np.nan, state.params))

    monkeypatch.setattr(Checkpoints, "restore", poisoned)
    with pytest.raises(UserError, match="last 2 updates before step 4 were skipped"):
        train(tiny_tokenizer_config("train.log_every=1", "train.max_skipped=2"), workdir)
    after, step = load_inference_params(workdir)
    assert step == 2
    assert_identical(after, before)


def test_codes_of_another_tokenizer_are_refused(code_cache, trained_tokenizer, tmp_path):
    other = shutil.copytree(trained_tokenizer, tmp_path / "other")
    description = json.loads((other / "model.json").read_text())
    description["fields"]["normalized"] = False
    (other / "model.json").write_text(json.dumps(description))
    assert load_tokenizer(other).fingerprint != load_tokenizer(trained_tokenizer).fingerprint
    config = tiny_generator_config(f"data.codes={code_cache}", f"sample.tokenizer={other}")
    with pytest.raises(UserError, match="another tokenizer"):
        train(config, tmp_path / "generator")
    assert not (tmp_path / "generator").exists()


def test_log_is_cut_back_to_the_checkpoint(trained_tokenizer):
    steps = [line["step"] for line in read_log(trained_tokenizer)]
    assert steps == [2, 4, 4]
