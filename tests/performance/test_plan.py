"""What a plan counts, against the sizes of the arrays themselves."""

import jax
import numpy as np
import pytest
from conftest import tiny_tokenizer_config

from fqgan_jax.errors import UserError
from fqgan_jax.performance.bench import bench_quantizer
from fqgan_jax.performance.plan import plan_step, topology_devices
from fqgan_jax.training.tokenizer_task import TokenizerTask


@pytest.mark.slow
def test_arguments_are_the_state_and_a_share_of_the_batch():
    config = tiny_tokenizer_config()
    plan = plan_step(config, jax.devices())
    task, key = TokenizerTask(config, 8), jax.random.key(0)
    size = lambda tree: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
    state, batch = jax.eval_shape(task.init, key), jax.eval_shape(task.random_batch, key)
    # The labels take no part in the step and are not kept.
    batch = {name: leaf for name, leaf in batch.items() if name != "label"}
    assert (plan.devices, plan.batch_size) == (8, 8)
    np.testing.assert_allclose(plan.arguments, size(state) + size(batch) / 8, rtol=1e-3)
    assert plan.memory == plan.arguments + plan.temporaries + plan.outputs
    assert plan.temporaries > 0
    assert plan.flops > 0


def test_unknown_topologies_are_explained():
    pytest.importorskip("libtpu")
    with pytest.raises(UserError, match="no plan for topology 'v99:1x1'"):
        topology_devices("v99:1x1")


def test_chunks_save_memory_and_change_no_gradient():
    values = bench_quantizer(2, 256, 8, tokens=1024, chunk_tokens=64, steps=1)
    assert values["chunked / direct temporaries"] < 0.2
    assert values["largest relative difference"] < 1e-4
