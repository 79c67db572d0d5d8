"""Weights split over `fsdp` are gathered; the examples stay where they are."""

import jax
import pytest
from support.tiny_configs import tiny_generator_config, tiny_tokenizer_config

from fqgan_jax.performance.tasks import make_step
from fqgan_jax.performance.traffic import read_traffic


@pytest.mark.slow
def test_collectives_of_a_split_state_are_those_of_its_weights():
    fields = ("model.width=256", "model.num_heads=4", "mesh.data=1", "mesh.fsdp=8", "data.batch_size=16")
    step = make_step(tiny_generator_config(*fields), tokenizer_config=tiny_tokenizer_config())
    text = step.lower().compile().as_text()
    sent = sum(collective.sent_within for collective in read_traffic(text, [0] * 8).collectives)
    weights = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(step.shapes.state.params))
    # Gathered for the forward and the backward pass, and gradients summed: 7/8 of them twice, and twice 7/8.
    assert sent < 4 * weights
