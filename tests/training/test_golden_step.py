"""The tokenizer's step against the published model's trajectories and gradients (tests/golden/README.md)."""

import zlib
from functools import partial

import jax
import numpy as np
import optax
import pytest
from support import golden_data, golden_step

from fqgan_jax.interop import discriminator_entries, published_entries
from fqgan_jax.interop.correspondence import gather
from fqgan_jax.training.tokenizer_step import tokenizer_step

pytestmark = pytest.mark.slow

KINDS = ("fixed", "adaptive")


def row(values, weights) -> dict:
    """One step's numbers under the golden names; published rows hold [sem, vis] with the weights of each loss."""

    def pair(name):
        return [float(value) * weights[name] for value in values[name][::-1]]

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


@pytest.mark.parametrize("kind", KINDS)
def test_trajectory(kind):
    golden = golden_data.numbers(f"trajectory_{kind}")
    sgd = optax.chain(optax.clip_by_global_norm(golden["clip"]), optax.sgd(golden["learning_rate"]))
    training = golden_step.training(sgd, start_step=golden["disc_start"], adaptive=golden["adaptive_weight"])
    step, state = jax.jit(partial(tokenizer_step, training=training)), golden_step.state(training)
    for i, expected in enumerate(golden["rows"]):
        state, values = step(state, golden_step.frozen(), golden_step.batch(golden, i))
        found = row(values, training.loss_weights)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            error = np.abs(np.subtract(found[name], value)) / (np.abs(value) + 0.01)
            assert np.max(error) < 2e-3, (i, name, found[name], value)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind):
    golden = golden_data.numbers("gradients")
    training = golden_step.training(optax.sgd(1.0), start_step=golden["disc_start"], adaptive=kind == "adaptive")
    before, batch = golden_step.state(training), golden_step.batch(golden, 0)
    after, values = jax.jit(partial(tokenizer_step, training=training))(before, golden_step.frozen(), batch)
    np.testing.assert_allclose(values["loss"], golden[kind]["generator_total"], rtol=1e-4)
    np.testing.assert_allclose(values["discriminator"], golden[kind]["discriminator_total"], rtol=1e-4)

    # One step of plain gradient descent at rate 1 moves by the gradient.
    grads, discriminator_grads = (
        jax.tree.map(np.subtract, old, new)
        for old, new in ((before.params, after.params), (before.adversary.params, after.adversary.params))
    )
    generator = gather(published_entries(training.module), grads)
    entries = discriminator_entries(training.adversarial.module, golden_step.SIZE)
    discriminator = {f"discriminator.{name}": x for name, x in gather(entries, discriminator_grads).items()}
    players = {"generator": generator, "discriminator": discriminator}
    assert {name for player in players.values() for name in player} == golden[kind]["gradients"].keys()
    for player, gradients in players.items():
        whole = np.sqrt(sum(golden[kind]["gradients"][name][0] ** 2 for name in gradients))
        for name, gradient in gradients.items():
            norm, product = golden[kind]["gradients"][name]
            rng = np.random.Generator(np.random.PCG64([golden["seed"], 77, zlib.crc32(name.encode())]))
            projection = rng.standard_normal(gradient.shape, dtype=np.float32)
            tolerance = 1e-2 * norm + 1e-3 * whole
            assert abs(np.linalg.norm(gradient) - norm) < tolerance, (player, name)
            assert abs(np.sum(gradient * projection) - product) < tolerance, (player, name)
