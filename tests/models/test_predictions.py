"""Each way to predict the K codes of a position: what it sees, and cached sampling against teacher forcing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import small_far

from fqgan_jax.models.predictions import predictions
from fqgan_jax.models.sampling import Known, sample_codes
from fqgan_jax.models.sampling_options import sampling_options
from fqgan_jax.models.stepwise import StepwiseFAR

GUIDANCE = 1.7
PLAIN = {"target_positions": False, "entry_dim": 0}
EXTENDED = {"target_positions": True, "entry_dim": 3}

# Whether the logits of code (t, k) see code (u, j), from the definition of each variant.
SEES = {
    "transformer": lambda t, k, u, j: u < t or (u == t and j < k),
    "parallel": lambda t, k, u, j: u < t,
    "flattened": lambda t, k, u, j: u < t or (u == t and j < k),
    "delayed": lambda t, k, u, j: u + j < t + k,
}


@pytest.mark.parametrize("prediction", SEES)
def test_logits_see_what_is_drawn_before_and_nothing_else(prediction):
    module, params, codes, labels = small_far.random_far(num_codebooks=3, prediction=prediction)
    apply = jax.jit(lambda codes: module.apply({"params": params}, codes, labels))
    logits = apply(codes)
    for u, j in [(0, 0), (5, 1), (5, 2), (9, 0)]:
        changed = apply(codes.at[:, u, j].add(1) % 11)
        differs = np.abs(changed - logits).max((0, 3)) > 1e-6
        expected = [[SEES[prediction](t, k, u, j) for k in range(3)] for t in range(12)]
        np.testing.assert_array_equal(differs, expected)


@pytest.mark.parametrize("fields", [PLAIN, EXTENDED], ids=["plain", "extended"])
@pytest.mark.parametrize("K", [1, 2, 3, 8])
@pytest.mark.parametrize("prediction", predictions)
def test_cached_sampling_equals_teacher_forcing(prediction, K, fields):
    module, params, _, _ = small_far.random_far(num_codebooks=K, prediction=prediction, **fields)
    labels, keys = jnp.array([0, 4, 2]), jax.random.split(jax.random.key(3), 3)
    options = sampling_options(K, guidance=GUIDANCE)
    codes, logits = sample_codes(module, params, keys=keys, labels=labels, options=options, with_logits=True)
    flat = codes.reshape(3, -1, K)
    conditional = module.apply({"params": params}, flat, labels)
    unconditional = module.apply({"params": params}, flat, jnp.full(3, 5))
    expected = unconditional + GUIDANCE * (conditional - unconditional)
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prediction", ["transformer", "parallel"])
def test_permuted_positions_are_what_a_loop_over_them_computes(prediction):
    K, T = 2, 12
    module, params, codes, labels = small_far.random_far(num_codebooks=K, prediction=prediction, **EXTENDED)
    order = jax.vmap(lambda key: jax.random.permutation(key, T))(jax.random.split(jax.random.key(7), 3))
    permuted = jnp.take_along_axis(codes, order[..., None], axis=1)
    logits = module.apply({"params": params}, permuted, labels, order=order)
    stepwise = StepwiseFAR.from_params(module, params)
    far = stepwise.far
    for b in range(3):
        caches = stepwise.empty_caches(1, T)
        for i in range(T):
            # Token i holds the code before it, stands where that is, and knows the position to be predicted.
            before, row = (permuted[b, i - 1], 1 + order[b, i - 1]) if i else (permuted[b, 0], 0)
            x = stepwise.token(
                far.embed(before).reshape(1, -1), labels=labels[b : b + 1], first=jnp.array(i == 0), target=order[b, i]
            )
            x, caches = stepwise.run_backbone(x, caches, index=i, row=row)
            if prediction == "transformer":
                hidden, head = stepwise.run_head(x, stepwise.head_caches(1, K), index=0)
                first = stepwise.logits(hidden, 0)
                hidden, _ = stepwise.run_head(far.embed_one(permuted[b, i, :1], 0)[:, None], head, index=1)
                expected = jnp.stack([first, stepwise.logits(hidden, 1)], axis=1)
            else:
                expected = jnp.stack([stepwise.logits(x, k) for k in range(K)], axis=1)
            np.testing.assert_allclose(logits[b, i], expected[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prediction", ["transformer", "parallel", "flattened"])
def test_the_identity_order_is_row_by_row(prediction):
    module, params, codes, labels = small_far.random_far(num_codebooks=2, prediction=prediction, target_positions=True)
    rows = jnp.broadcast_to(jnp.arange(12), (3, 12))
    plain, ordered = (module.apply({"params": params}, codes, labels, order=order) for order in (None, rows))
    np.testing.assert_allclose(ordered, plain, atol=1e-5)


@pytest.mark.parametrize("prediction", predictions)
def test_known_codes_come_back_and_guide_what_follows(prediction):
    K = 3
    module, params, codes, _ = small_far.random_far(num_codebooks=K, prediction=prediction)
    labels, keys = jnp.array([0, 4, 2]), jax.random.split(jax.random.key(3), 3)
    options = sampling_options(K, guidance=GUIDANCE)

    def draw(known):
        return sample_codes(module, params, keys=keys, labels=labels, options=options, known=known, with_logits=True)

    free, _ = draw(None)
    given = codes.reshape(3, 3, 4, K)
    nothing, _ = draw(Known(codes=given, keep=jnp.zeros((3, 3, 4), bool)))
    np.testing.assert_array_equal(nothing, free)

    keep = jnp.zeros((3, 3, 4), bool).at[:, 1, 1:3].set(True).at[0, 0, 0].set(True)
    drawn, logits = draw(Known(codes=given, keep=keep))
    np.testing.assert_array_equal(drawn[keep], given[keep])
    flat = drawn.reshape(3, 12, K)
    conditional = module.apply({"params": params}, flat, labels)
    unconditional = module.apply({"params": params}, flat, jnp.full(3, 5))
    np.testing.assert_allclose(logits, unconditional + GUIDANCE * (conditional - unconditional), atol=1e-4, rtol=1e-4)
    assert (drawn != free).any()
    np.testing.assert_array_equal(drawn[1:, 0], free[1:, 0])  # nothing before a kept position changes
