"""The search for the largest batch, on plans made up."""

import pytest

from fqgan_jax.errors import UserError
from fqgan_jax.performance.chips import CHIPS
from fqgan_jax.performance.plan import Plan
from fqgan_jax.performance.search import largest_batch


def made_up_plan(examples: int, available: float = 100.0) -> Plan:
    memory = {"parameters": 30.0, "temporaries": 5 + 1.7 * examples + 0.002 * examples**2}
    fits = sum(memory.values()) <= available
    return Plan(
        program="step",
        devices=8,
        chips=8,
        hosts=1,
        batch_size=8 * examples,
        chip=CHIPS["TPU v5e"],
        memory=memory,
        available=available,
        fits=fits,
        model_flops=1,
        flops=1,
        xla_flops=1,
        floor=1,
        traffic=None,
        compile_seconds=0.0,
    )


@pytest.mark.parametrize("start", [1, 8, 100])
def test_search_finds_the_largest_batch_in_few_compilations(start):
    tried = []

    def plan_of(examples):
        tried.append(examples)
        return made_up_plan(examples)

    best = largest_batch(plan_of, start, max_compilations=8)
    largest = max(n for n in range(1, 100) if made_up_plan(n).fits)
    assert best.batch_size == 8 * largest
    assert len(tried) == len(set(tried)) <= 8


def test_search_where_nothing_fits():
    with pytest.raises(UserError, match="No batch fits: 1 example"):
        largest_batch(lambda examples: made_up_plan(examples, 20), 2)
