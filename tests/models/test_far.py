"""FAR: rotation against complex numbers, causality, cached decoding against teacher forcing."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import small_far

from fqgan_jax.losses.generator_losses import next_code_loss
from fqgan_jax.models.causal_layers import rotary_table, rotate, swiglu_width
from fqgan_jax.models.far import FAR
from fqgan_jax.models.sampling import sample_codes, sampling_stretches
from fqgan_jax.models.sampling_options import sampling_options
from fqgan_jax.performance.floors import sampling_floor_bytes
from fqgan_jax.performance.traffic import read_traffic


def test_rotary_table_turns_by_row_and_by_column():
    table = np.asarray(rotary_table((3, 5), 8))
    assert not np.any(table[0])
    frequencies = 10000.0 ** -np.array([0, 0.5])
    for row in range(3):
        for column in range(5):
            angles = np.concatenate([row * frequencies, column * frequencies])
            cos, sin = table[1 + row * 5 + column].T
            np.testing.assert_allclose(cos + 1j * sin, np.exp(1j * angles), atol=1e-6)


def test_rotation_is_complex_multiplication_of_interleaved_pairs():
    table = rotary_table((2, 2), 8)
    x = np.asarray(jax.random.normal(jax.random.key(0), (1, 5, 2, 8)))
    numbers = (x[..., 0::2] + 1j * x[..., 1::2]) * (table[:, None, :, 0] + 1j * table[:, None, :, 1])
    rotated = np.asarray(rotate(x, table))
    np.testing.assert_allclose(rotated[..., 0::2] + 1j * rotated[..., 1::2], numbers, atol=1e-5)


@pytest.mark.parametrize(("width", "multiple", "expected"), [(1024, 256, 2816), (1280, 256, 3584), (64, 32, 192)])
def test_swiglu_width(width, multiple, expected):
    assert swiglu_width(width, multiple) == expected


def test_logits_see_only_earlier_codes():
    module, params, codes, labels = small_far.random_far(num_codebooks=3)
    logits = module.apply({"params": params}, codes, labels)
    t, k = 5, 1
    changed = module.apply({"params": params}, codes.at[:, t, k].add(1) % 11, labels)
    same = np.isclose(logits, changed, atol=1e-6).all((0, 3))
    assert same[:t].all()
    np.testing.assert_array_equal(same[t], [True, True, False])
    assert not same[t + 1].any()


@pytest.mark.parametrize(("K", "grid"), [(1, (3, 4)), (2, (6, 11)), (3, (3, 4)), (8, (3, 4))])
def test_cached_sampling_equals_teacher_forcing(K, grid):
    module, params, _, _ = small_far.random_far(num_codebooks=K)
    module = module.clone(grid=grid)
    labels, keys = jnp.array([0, 4, 2]), jax.random.split(jax.random.key(3), 3)
    codes, logits = sample_codes(
        module, params, keys=keys, labels=labels, options=sampling_options(K, guidance=1.7), with_logits=True
    )
    flat = codes.reshape(3, -1, K)
    conditional = module.apply({"params": params}, flat, labels)
    unconditional = module.apply({"params": params}, flat, jnp.full(3, 5))
    expected = unconditional + 1.7 * (conditional - unconditional)
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=1e-4)
    assert set(np.unique(codes)) <= set(range(11))


@pytest.mark.parametrize("length", [1, 12, 64, 66, 132, 256, 1024, 1027])
def test_stretches_cover_all_positions(length):
    stretches = sampling_stretches(length)
    assert [t for start, stop in stretches for t in range(start, stop)] == list(range(length))
    assert len(stretches) <= 4
    if length >= 256:  # half of the square is filled
        assert sum(stop * (stop - start) for start, stop in stretches) < 0.63 * length**2


def test_sampling_copies_no_weights():
    sizes = {"codebook_size": 256, "width": 256, "depth": 2, "num_heads": 4, "head_depth": 1}
    module = FAR(num_codebooks=2, num_classes=5, grid=(8, 8), **sizes)
    blank, labels = jnp.zeros((1, 64, 2), jnp.int32), jnp.zeros(1, jnp.int32)
    params = jax.eval_shape(module.init, jax.random.key(0), blank, labels)["params"]
    keys = jax.random.split(jax.random.key(0), 1)
    draw = partial(sample_codes, module, keys=keys, labels=labels, options=sampling_options(2))
    traffic = read_traffic(jax.jit(draw).lower(params).compile().as_text(), hosts=[0])
    # Sliced at every position, weights alone would be read twice and written once.
    assert traffic.bytes < 1.2 * sampling_floor_bytes(module, params, 1)


def test_sampling_in_bfloat16_computes_what_training_does():
    module, params, _, _ = small_far.random_far(num_codebooks=2)
    module = module.clone(dtype=jnp.bfloat16)
    labels, keys = jnp.array([0, 4, 2]), jax.random.split(jax.random.key(3), 3)
    codes, logits = sample_codes(
        module, params, keys=keys, labels=labels, options=sampling_options(2, guidance=1), with_logits=True
    )
    expected = module.apply({"params": params}, codes.reshape(3, -1, 2), labels)
    assert logits.dtype == jnp.float32
    # Three digits of the largest: bfloat16 has eight bits.
    np.testing.assert_allclose(logits, expected, atol=0.01 * np.abs(expected).max())


def test_new_model_predicts_uniformly():
    module, _, codes, labels = small_far.random_far(num_codebooks=2)
    params = module.init(jax.random.key(0), codes, labels)
    assert not np.any(module.apply(params, codes, labels))


def test_dropout_acts_in_training_only():
    module, params, codes, labels = small_far.random_far(num_codebooks=2)

    def apply(seed, *, train):
        rngs = {"dropout": jax.random.key(seed)}
        return jax.jit(partial(module.apply, train=train))({"params": params}, codes, labels, rngs=rngs)

    first = apply(0, train=True)
    np.testing.assert_array_equal(apply(0, train=True), first)
    assert np.abs(apply(1, train=True) - first).max() > 1e-3
    np.testing.assert_array_equal(apply(0, train=False), apply(1, train=False))


@pytest.mark.parametrize("remat", ["blocks", "full"])
def test_rematerialization_changes_neither_loss_nor_gradients(remat):
    module, params, codes, labels = small_far.random_far(num_codebooks=2)

    def loss(params, module):
        dropout = {"dropout": jax.random.key(5)}
        logits = module.apply({"params": params}, codes, labels, train=True, rngs=dropout)
        return jnp.mean(next_code_loss(logits=logits, codes=codes))

    step = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    expected, expected_grads = step(params, module)
    value, grads = step(params, module.clone(remat=remat))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), grads, expected_grads)
    assert "remat" in str(jax.make_jaxpr(loss, static_argnums=1)(params, module.clone(remat=remat)))
