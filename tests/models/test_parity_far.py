"""The generator against the published model's numbers (tests/golden/README.md, whose tolerances these are)."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_data

from fqgan_jax.interop import import_params, infer_generator_fields
from fqgan_jax.losses.generator_losses import next_code_loss
from fqgan_jax.models.far import FAR
from fqgan_jax.models.predictions import predictions
from fqgan_jax.models.stepwise import StepwiseFAR

TOLERANCE = 1e-4


class Golden(NamedTuple):
    """A small generator with the golden weights, and the published model's numbers."""

    module: FAR
    params: dict
    numbers: dict[str, np.ndarray]


@pytest.fixture(scope="module", params=["far_dual_tiny", "far_triple_tiny"])
def golden(request) -> Golden:
    module = FAR(**infer_generator_fields(golden_data.shapes(request.param), num_heads=4, grid=(4, 4)))
    params = import_params(golden_data.state_dict(request.param), module)
    return Golden(module, params, golden_data.arrays(request.param))


@pytest.fixture(scope="module")
def generate(golden):
    """Greedy generation, compiled once for all scales of guidance: returns codes [B, T, K] and guided logits."""
    return jax.jit(partial(_generate, golden.module))


def _generate(module: FAR, params, labels, *, scale, forced):
    """`forced` [B, T, K] holds the codes to take if two are equally likely, and -1 elsewhere."""
    null = jnp.full_like(labels, module.num_classes)
    both = jnp.concatenate([labels, null])

    def guide(logits):
        conditional, unconditional = jnp.split(logits, 2)
        return unconditional + scale * (conditional - unconditional)

    stepwise = StepwiseFAR.from_params(module, params)

    def step(carry, inputs):
        t, forced = inputs

        def choose(logits, k):
            code = jnp.where(forced[:, k] < 0, jnp.argmax(guide(logits), axis=-1), forced[:, k])
            return jnp.tile(code, 2)

        caches, codes, logits = predictions[module.prediction].step(stepwise, *carry, s=t, labels=both, choose=choose)
        return (caches, codes), (codes[: len(labels)], guide(logits))

    T = forced.shape[1]
    start = stepwise.empty_caches(len(both), T), jnp.zeros((len(both), module.num_codebooks), jnp.int32)
    _, (codes, logits) = jax.lax.scan(step, start, (jnp.arange(T), forced.swapaxes(0, 1)))
    return codes.swapaxes(0, 1), logits.swapaxes(0, 1)


def test_teacher_forced(golden):
    module, params, numbers = golden
    logits = jax.jit(module.apply)({"params": params}, numbers["tokens"], numbers["labels"])
    assert golden_data.relative_error(logits, numbers["logits"]) < TOLERANCE
    loss = next_code_loss(logits=logits, codes=numbers["tokens"]).mean()
    assert golden_data.relative_error(loss, numbers["loss"]) < TOLERANCE


@pytest.mark.parametrize("guidance", [1, 2])
def test_greedy_generation(golden, generate, guidance):
    expected = golden.numbers[f"greedy_logits_cfg{guidance}"]
    expected_codes = golden.numbers[f"greedy_cfg{guidance}"]
    second, best = np.moveaxis(np.sort(expected, axis=-1)[..., -2:], -1, 0)
    tied = best - second <= 2 * TOLERANCE * np.abs(expected).max()
    assert tied.mean() < 0.05
    forced = np.where(tied, expected_codes, -1)
    codes, logits = generate(golden.params, golden.numbers["labels"], scale=guidance, forced=forced)
    np.testing.assert_array_equal(codes, expected_codes)
    assert golden_data.relative_error(logits, expected) < TOLERANCE
