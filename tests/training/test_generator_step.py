"""The generator's step against the published model's trajectories (tests/golden/README.md)."""

from functools import partial

import jax
import numpy as np
import pytest
from support import golden_data

from fqgan_jax.interop import import_params, infer_generator_fields, published_entries
from fqgan_jax.interop.correspondence import gather
from fqgan_jax.models.far import FAR
from fqgan_jax.training.generator_step import GeneratorTraining, generator_step
from fqgan_jax.training.optimizers import OptimizerSettings, make_tx
from fqgan_jax.training.state import create_state


@pytest.mark.parametrize("kind", ["dual", "triple"])
def test_trajectory(kind):
    golden, tokens = golden_data.numbers(f"trajectory_far_{kind}"), golden_data.arrays(f"far_{kind}_tiny")
    name = f"far_{kind}_tiny"
    module = FAR(**infer_generator_fields(golden_data.shapes(name), num_heads=4, grid=(4, 4), dropout=0.0))
    settings = {field: golden[field] for field in ("learning_rate", "weight_decay", "b1", "b2", "clip")}
    training = GeneratorTraining(
        module=module,
        tx=make_tx(OptimizerSettings(total_steps=golden["steps"], **settings)),
        loss_weights={"next_code": 1.0},
        class_dropout=0.0,
    )
    state = create_state(import_params(golden_data.state_dict(name), module), training.tx, with_ema=False)
    codes = tokens["tokens"].reshape(-1, 4, 4, module.num_codebooks)
    step = jax.jit(partial(generator_step, training=training))
    for i in range(golden["steps"]):
        state, values = step(state, {"codes": codes, "label": tokens["labels"]})
        np.testing.assert_allclose(values["loss"], golden["loss"][i], rtol=2e-3, err_msg=f"step {i}")
        np.testing.assert_allclose(values["gradient_norm"], golden["gradient_norm"][i], rtol=2e-3, err_msg=f"step {i}")
    final = gather(published_entries(module), state.params)
    assert final.keys() == golden["final"].keys()
    for tensor, (mean, norm) in golden["final"].items():
        np.testing.assert_allclose(np.linalg.norm(final[tensor]), norm, rtol=1e-3, err_msg=tensor)
        scale = norm / np.sqrt(final[tensor].size)
        np.testing.assert_allclose(np.mean(final[tensor]), mean, atol=1e-2 * scale, err_msg=tensor)
