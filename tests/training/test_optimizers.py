"""Weight decay and schedules."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from support import golden_data

from fqgan_jax.errors import UserError
from fqgan_jax.interop import infer_generator_fields, infer_tokenizer_fields, published_entries
from fqgan_jax.models.far import FAR
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.training.optimizers import OptimizerSettings, is_decayed, learning_rate_schedule, schedules


def decayed_paths(module, *inputs) -> dict[str, bool]:
    params = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    return flatten_dict(is_decayed(params), sep="/")


@pytest.mark.parametrize("name", ["dual_f16", "triple_f16", "dual_f8", "far_dual_B", "far_triple_tiny"])
def test_decay_applies_to_the_tensors_that_have_two_axes_in_published_checkpoints(name):
    """Norms and biases are stacked over depth and K here, and have two axes for that reason alone."""
    shapes = golden_data.shapes(name)
    if name.startswith("far"):
        module = FAR(**infer_generator_fields(shapes, num_heads=4))
        codes = jax.ShapeDtypeStruct((1, module.grid[0] * module.grid[1], module.num_codebooks), np.int32)
        entries, inputs = published_entries(module), (codes, jax.ShapeDtypeStruct((1,), np.int32))
    else:
        module = FQGAN(**infer_tokenizer_fields(shapes))
        entries, inputs = published_entries(module), (jax.ShapeDtypeStruct((1, 256, 256, 3), np.float32),)
    expected = {entry.path: len(entry.shape) > 1 for entry in entries}
    assert decayed_paths(module, *inputs) == expected
    assert set(expected.values()) == {True, False}


def settings(**fields) -> OptimizerSettings:
    return OptimizerSettings(learning_rate=0.1, total_steps=10, **fields)


def test_schedules():
    warm = learning_rate_schedule(settings(warmup_steps=4))
    np.testing.assert_allclose([warm(t) for t in (0, 2, 4, 9)], [0, 0.05, 0.1, 0.1])
    cosine = learning_rate_schedule(settings(schedule="cosine"))
    np.testing.assert_allclose([cosine(t) for t in (0, 5, 10)], [0.1, 0.05, 0], atol=1e-9)
    floor = learning_rate_schedule(settings(schedule="cosine", floor=0.1))
    np.testing.assert_allclose([floor(t) for t in (0, 5, 10, 20)], [0.1, 0.055, 0.01, 0.01], rtol=1e-6)
    linear = learning_rate_schedule(settings(schedule="linear", floor=0.2, warmup_steps=2))
    np.testing.assert_allclose([linear(t) for t in (0, 1, 2, 6, 10)], [0, 0.05, 0.1, 0.06, 0.02], rtol=1e-6)
    stable = learning_rate_schedule(settings(schedule="stable_decay", decay_steps=4, warmup_steps=2))
    np.testing.assert_allclose([stable(t) for t in (1, 2, 6, 8, 10)], [0.05, 0.1, 0.1, 0.05, 0], rtol=1e-6, atol=1e-9)
    depending = {name for name, row in schedules.items() if row.depends_on_total_steps}
    assert depending == {"cosine", "linear", "stable_decay"}


def test_an_unknown_schedule_is_refused():
    with pytest.raises(UserError, match="no learning-rate schedule 'cosin'; did you mean 'cosine'"):
        learning_rate_schedule(settings(schedule="cosin"))
