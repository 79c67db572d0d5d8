"""The whole objective on a tiny tokenizer: invariants of the step."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from support import golden_vgg
from support.rows import replace_row
from support.tiny_configs import tiny_tokenizer_config

from fqgan_jax.pretrained.lpips import import_lpips
from fqgan_jax.pretrained.perceptual import perceptual_networks
from fqgan_jax.sharding.mesh import batch_sharding, make_mesh, replicated
from fqgan_jax.sharding.rules import state_sharding
from fqgan_jax.training import tokenizer_task
from fqgan_jax.training.metrics import compute

pytestmark = pytest.mark.slow

WHOLE = (
    *("data.image_size=32", "data.batch_size=16", "loss.perceptual=1.0", "frozen_dtype=float32"),
    *("adversarial.discriminator=patch", "adversarial.width=8", "adversarial.start=2", "adversarial.adaptive=True"),
)


@pytest.fixture(scope="module", autouse=True)
def perceptual_weights():
    """The golden recipe's weights take the place of the published ones."""
    with pytest.MonkeyPatch.context() as patch:
        params = import_lpips(golden_vgg.features(), golden_vgg.heads())
        row = dataclasses.replace(perceptual_networks["lpips"], load=lambda: params)
        replace_row(patch, perceptual_networks, "lpips", row)
        patch.setattr(tokenizer_task, "check_fetched", lambda names: None)
        yield


def make_task(*overrides):
    task = tokenizer_task.TokenizerTask(tiny_tokenizer_config(*WHOLE, *overrides), jax.device_count())
    # Plain gradient descent: Adam would amplify rounding.
    sgd = optax.sgd(1e-2)
    adversarial = dataclasses.replace(task.training.adversarial, tx=sgd)
    task.training = dataclasses.replace(task.training, tx=sgd, adversarial=adversarial)
    return task


@pytest.fixture(scope="module")
def task():
    return make_task()


def run(task, steps=2, axes=None, devices=None):
    """Metrics of each step and the state after the last one, on one device or a mesh."""
    mesh = make_mesh(axes or {"data": 1, "fsdp": 1}, devices or jax.devices()[:1])
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    sharding, whole = state_sharding(shapes, mesh, kind="tokenizer"), replicated(mesh)
    # Drawn on one device: all runs start from the same numbers.
    state = jax.device_put(jax.jit(task.init)(jax.random.key(0)), sharding)
    step = jax.jit(task.step, in_shardings=(sharding, whole, batch_sharding(mesh)), out_shardings=(sharding, whole))
    frozen, stream, rows = jax.device_put(task.frozen(), whole), task.batches(0), []
    for _ in range(steps):
        state, collected = step(state, frozen, jax.device_put(next(stream), batch_sharding(mesh)))
        rows.append(compute(collected))
    return rows, state


@pytest.fixture(scope="module")
def reference(task):
    return run(task)


def assert_same(ours, theirs, rtol=1e-5):
    for first, second in zip(ours[0], theirs[0], strict=True):
        assert first.keys() == second.keys()
        for name in first:
            np.testing.assert_allclose(first[name], second[name], rtol=rtol, atol=1e-6, err_msg=name)
    leaves = zip(*(jax.tree.leaves((s.params, s.adversary)) for s in (ours[1], theirs[1])), strict=True)
    for first, second in leaves:
        np.testing.assert_allclose(first, second, rtol=rtol, atol=1e-5)


def test_eight_devices_give_the_numbers_of_one(task, reference):
    assert_same(run(task, axes={"data": 4, "fsdp": 2}, devices=jax.devices()), reference)


def test_parts_of_a_batch_give_the_numbers_of_the_whole(reference):
    assert_same(run(make_task("train.accumulate=2")), reference)


@pytest.mark.parametrize("remat", ["blocks", "full"])
def test_rematerialization_changes_no_number(reference, remat):
    assert_same(run(make_task(f"model.remat={remat}")), reference)


def test_every_term_is_named(reference):
    names = {"reconstruction", "perceptual", "adversarial", "discriminator", "disentanglement", "loss", "gradient_norm"}
    names |= {"logits_real", "logits_fake", "adaptive_weight", "discriminator_gradient_norm", "feature/0"}
    names |= {
        f"{name}/{k}" for name in ("codebook", "commitment", "entropy", "usage", "perplexity", "dead") for k in (0, 1)
    }
    assert reference[0][0].keys() == names
    # The discriminator rests in the first step, and counts in the second.
    assert reference[0][0]["discriminator"] == 0 < reference[0][1]["discriminator"]


def test_what_is_not_finite_changes_nothing_and_is_counted(task, reference):
    step, frozen, batch = jax.jit(task.step), task.frozen(), next(task.batches(0))
    state = reference[1]
    poisoned = jax.tree.map(lambda x: x * np.nan, frozen)
    after, _ = step(step(state, poisoned, batch)[0], poisoned, batch)
    assert (int(after.step), int(after.skipped)) == (4, 2)
    jax.tree.map(
        np.testing.assert_array_equal,
        (after.params, after.opt_state, after.adversary),
        (state.params, state.opt_state, state.adversary),
    )
    recovered, _ = step(after, frozen, batch)
    assert (int(recovered.step), int(recovered.skipped)) == (5, 0)
