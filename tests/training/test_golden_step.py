"""The training step against the published model's trajectories and gradients (tests/golden/README.md)."""

import zlib
from functools import partial

import jax
import numpy as np
import optax
import pytest
from support import golden_data, golden_step

from fqgan_jax.interop.correspondence import gather
from fqgan_jax.interop.published import discriminator_entries, tokenizer_entries
from fqgan_jax.training.tokenizer_step import tokenizer_step

KINDS = ("fixed", "adaptive")


def compiled(players, config):
    return jax.jit(partial(tokenizer_step, players=players, config=config))


def row(values, weights) -> dict:
    """One step's numbers under the golden names; published rows hold [sem, vis] with the weights of each loss."""
    pair = lambda name: [float(value) * weights[name] for value in values[name][::-1]]
    return {
        "reconstruction": float(values["reconstruction"]),
        "perceptual": float(values["perceptual"]),
        "adversarial": float(values["adversarial"]),
        "codebook": pair("codebook"),
        "commitment": pair("commitment"),
        "entropy": pair("entropy"),
        "disentanglement": weights["disentanglement"] * float(values["disentanglement"]),
        "feature": float(values["feature"][0]),
        "generator_total": float(values["loss"]),
        "generator_grad_norm": float(values["gradient_norm"]),
        "discriminator_total": float(values["discriminator"]),
        "discriminator_grad_norm": float(values["discriminator_gradient_norm"]),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_trajectory(kind):
    golden = golden_data.numbers(f"trajectory_{kind}")
    config = golden_step.config(adversarial__adaptive=golden["adaptive_weight"])
    sgd = optax.chain(optax.clip_by_global_norm(golden["clip"]), optax.sgd(golden["learning_rate"]))
    players = golden_step.players(sgd)
    step, state = compiled(players, config), golden_step.state(players)
    for i, expected in enumerate(golden["rows"]):
        state, values = step(state, golden_step.frozen(), *golden_step.batch(i))
        ours = row(values, config.loss)
        assert ours.keys() == expected.keys()
        for name, value in expected.items():
            error = np.abs(np.subtract(ours[name], value)) / (np.abs(value) + 0.01)
            assert np.max(error) < 2e-3, (i, name, ours[name], value)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind):
    golden = golden_data.numbers("gradients")
    config = golden_step.config(adversarial__adaptive=kind == "adaptive", adversarial__start=golden["disc_start"])
    players = golden_step.players(optax.sgd(1.0))
    before = golden_step.state(players)
    after, values = compiled(players, config)(before, golden_step.frozen(), *golden_step.batch(0))
    np.testing.assert_allclose(values["loss"], golden[kind]["generator_total"], rtol=1e-4)
    np.testing.assert_allclose(values["discriminator"], golden[kind]["discriminator_total"], rtol=1e-4)

    # One step of plain gradient descent at rate 1 moves by the gradient.
    moved = lambda old, new: jax.tree.map(np.subtract, old, new)
    ours = gather(tokenizer_entries(players.tokenizer), moved(before.params, after.params))
    entries = discriminator_entries(players.discriminator, golden_step.SIZE)
    theirs = gather(entries, moved(before.adversary.params, after.adversary.params))
    both = {"generator": ours, "discriminator": {f"discriminator.{name}": x for name, x in theirs.items()}}
    assert {name for player in both.values() for name in player} == golden[kind]["gradients"].keys()
    for player, gradients in both.items():
        whole = np.sqrt(sum(golden[kind]["gradients"][name][0] ** 2 for name in gradients))
        for name, gradient in gradients.items():
            norm, product = golden[kind]["gradients"][name]
            rng = np.random.Generator(np.random.PCG64([golden["seed"], 77, zlib.crc32(name.encode())]))
            projection = rng.standard_normal(gradient.shape, dtype=np.float32)
            tolerance = 1e-2 * norm + 1e-3 * whole
            assert abs(np.linalg.norm(gradient) - norm) < tolerance, (player, name)
            assert abs(np.sum(gradient * projection) - product) < tolerance, (player, name)
