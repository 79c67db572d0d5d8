"""Operations counted on jaxprs, against counts by hand and against XLA where there are no loops."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from fqgan_jax.performance.flops import count_flops


def convolution(x, kernel, *, stride=1, padding="SAME", dilation=1, groups=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def xla_flops(function, *arguments) -> float:
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


def test_matrix_products():
    a, b = jnp.ones((5, 2, 3)), jnp.ones((5, 3, 7))
    assert count_flops(jnp.matmul, a, b) == 2 * 5 * 2 * 3 * 7
    # Two products of the same size come back.
    assert count_flops(jax.grad(lambda a, b: jnp.sum((a @ b) ** 2), (0, 1)), a, b) == 3 * 2 * 5 * 2 * 3 * 7


def test_a_convolution_does_not_count_its_padding():
    x, kernel = jnp.ones((2, 9, 9, 4)), jnp.ones((3, 3, 4, 8))
    # Along a side of nine, three taps meet nine inputs but for one at each end.
    assert count_flops(convolution, x, kernel) == 2 * 2 * 4 * 8 * (3 * 9 - 2) ** 2


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2}, {"padding": "VALID"}, {"dilation": 2}, {"groups": 4}], ids=lambda o: str(o)
)
def test_convolutions_and_their_gradients_agree_with_xla(options):
    x, kernel = jnp.ones((2, 9, 9, 32)), jnp.ones((3, 3, 32 // options.get("groups", 1), 16))

    def forward(x, kernel):
        return jnp.sum(convolution(x, kernel, **options) ** 2)

    for function in (forward, jax.grad(forward, (0, 1))):
        # XLA also counts element-wise operations, a few a value.
        assert count_flops(function, x, kernel) == pytest.approx(xla_flops(function, x, kernel), rel=0.03)


def test_loops_count_as_often_as_they_run():
    weights, x = jnp.ones((6, 16, 16)), jnp.ones((3, 16))

    def loop(weights, x):
        return jnp.sum(lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0])

    once = 2 * 3 * 16 * 16
    assert count_flops(loop, weights, x) == 6 * once
    assert count_flops(jax.grad(loop), weights, x) == 3 * 6 * once
    assert xla_flops(loop, weights, x) < 2 * once  # which is why they are counted here


def test_what_is_computed_again_counts_and_what_nobody_needs_does_not():
    w, x = jnp.ones((16, 16)), jnp.ones((3, 16))
    once = 2 * 3 * 16 * 16

    def again(w, x):
        return jnp.sum(jnp.sin(jax.checkpoint(lambda x: jnp.tanh(x @ w) @ w)(x)))

    assert count_flops(again, w, x) == 2 * once
    # Forward two, backward four, and again the one product whose value the backward pass needs.
    assert count_flops(jax.grad(again, (0, 1)), w, x) == 7 * once
    assert count_flops(lambda w, x: (x, x @ w)[0], w, x) == 0


def test_branches_count_as_the_dearest():
    w, x = jnp.ones((16, 16)), jnp.ones((3, 16))

    def either(w, x):
        return lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x)

    assert count_flops(either, w, x) == 2 * 2 * 3 * 16 * 16
