"""Nested sub-codebooks: what a step keeps, what counts, and prefixes that are tokenizers of their own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_configs import PLAIN, tiny_tokenizer_config

from fqgan_jax.api import Tokenizer
from fqgan_jax.errors import UserError
from fqgan_jax.losses.quantization_losses import codebook_loss, disentanglement_loss, entropy_loss
from fqgan_jax.losses.tokenizer_losses import feature_loss
from fqgan_jax.models.fields import identifying_fields
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.training.nested import kept_codebooks, nested_probabilities
from fqgan_jax.training.tokenizer_task import TokenizerTask

NESTED = (0.0, 0.2, 0.5)
SMALL = {"codebook_size": 16, "code_dim": 4, "grid": (4, 4), "base_width": 8, "multipliers": (1, 2), "num_blocks": 1}
SMALL |= {"norm_groups": 4, "z_channels": 16, "adapter_depth": 1, "adapter_heads": 2, "feature_heads": 2}


@pytest.fixture(scope="module", params=["adapters", "split"])
def tokenizer(request):
    K = 4
    fields = SMALL | {"factorization": request.param, "feature_widths": (None, 8, None, 8), "feature_depth": 1}
    module = FQGAN(num_codebooks=K, nested=(0.0, 0.1, 0.2, 0.3), **fields)
    images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3), minval=-1)
    params = jax.jit(module.init)(jax.random.key(1), images)["params"]
    # Biases begin at zero; all parameters should matter here.
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.sin(jnp.arange(leaf.size).reshape(leaf.shape)), params)
    return Tokenizer(module, params), images


@pytest.mark.slow
def test_a_prefix_is_what_a_model_computes_that_never_had_the_rest(tokenizer):
    tokenizer, images = tokenizer
    codes = tokenizer.encode(images)
    for k in (1, 2, 3):
        alone = tokenizer.module.clone(num_codebooks=k, feature_widths=(None, 8, None, 8)[:k], nested=())
        params = {
            **{name: tokenizer.params[name] for name in ("encoder", "decoder")},
            "heads": first_of_heads(tokenizer, k),
            "quantizer": {"codebooks": tokenizer.params["quantizer"]["codebooks"][:k]},
            "from_codes": {
                "kernel": tokenizer.params["from_codes"]["kernel"][: 4 * k],
                "bias": tokenizer.params["from_codes"]["bias"],
            },
        } | {name: value for name, value in tokenizer.params.items() if name in ("feature_predictors_1",) and k > 1}
        expected = Tokenizer(alone, params)
        np.testing.assert_array_equal(tokenizer.encode(images, codebooks=k), expected.encode(images))
        np.testing.assert_array_equal(tokenizer.encode(images, codebooks=k), codes[..., :k])
        np.testing.assert_array_equal(tokenizer.decode(codes[..., :k]), expected.decode(codes[..., :k]))
        assert tokenizer.first(k).fingerprint == expected.fingerprint


def first_of_heads(tokenizer, k):
    heads = tokenizer.params["heads"]
    if tokenizer.module.factorization == "adapters":
        return jax.tree.map(lambda leaf: leaf[:k], heads)
    return heads | {"conv_out": jax.tree.map(lambda leaf: leaf[..., : 4 * k], heads["conv_out"])}


def test_prefixes_of_other_tokenizers_are_refused(tokenizer):
    tokenizer, images = tokenizer
    whole = dataclasses.replace(tokenizer, module=tokenizer.module.clone(nested=()))
    assert identifying_fields(whole.module) == identifying_fields(tokenizer.module)
    with pytest.raises(UserError, match=r"The first 2 of this tokenizer's 4 sub-codebooks do not decode on their own"):
        whole.encode(images, codebooks=2)
    with pytest.raises(UserError, match=r"Codes must have 4 sub-codebooks"):
        whole.decode(whole.encode(images)[..., :2])
    for count in (0, 5, 1.5):
        with pytest.raises(UserError, match=rf"has 4 sub-codebooks: {count} of them cannot be taken"):
            tokenizer.first(count)


def test_a_step_keeps_a_prefix_as_often_as_it_should():
    kept = jax.vmap(lambda key: kept_codebooks(key, NESTED))(jax.random.split(jax.random.key(0), 4000))
    assert np.all(np.diff(kept, axis=1) <= 0)
    np.testing.assert_allclose(kept.mean(0), [1, 0.8, 0.5], atol=0.03)


@pytest.mark.parametrize(
    ("nested", "expected"),
    [((), ()), (0, ()), (0.3, (0, 0.1, 0.2, 0.3)), ((0.3,), (0, 0.1, 0.2, 0.3)), ((0, 0.2, 0.3, 0.4),) * 2],
)
def test_probabilities(nested, expected):
    np.testing.assert_allclose(nested_probabilities(nested, 4), expected)


@pytest.mark.parametrize("nested", [(0, 0.1), (0.1, 0.2, 0.3, 0.4), (0, 0.3, 0.2, 0.4), (0, 0.1, 0.2, 1.0), -0.1])
def test_probabilities_that_make_no_prefix_are_refused(nested):
    with pytest.raises(UserError, match=r"model.nested"):
        nested_probabilities(nested, 4)


def test_losses_count_only_what_is_kept():
    keys = jax.random.split(jax.random.key(3), 6)
    latents, entries, quantized = (jax.random.normal(key, (2, 3, 3, 3, 4)) for key in keys[:3])
    kept = jnp.array([1.0, 1.0, 0.0])
    whole = codebook_loss(entries=entries, latents=latents)
    np.testing.assert_allclose(codebook_loss(entries=entries, latents=latents, kept=kept), whole * kept)
    soft = {"token_entropy": jnp.arange(3.0), "mean_probability": jnp.full((3, 5), 0.2)}
    np.testing.assert_allclose(entropy_loss(**soft, kept=kept), entropy_loss(**soft) * kept, rtol=1e-6)
    first_two = disentanglement_loss(quantized=quantized[..., :2, :])
    masked = disentanglement_loss(quantized=quantized * kept[:, None], kept=kept)
    np.testing.assert_allclose(masked, first_two, rtol=1e-5)
    features = [(None, *(jax.random.normal(key, (4, 5)) for key in pair)) for pair in (keys[2:4], keys[4:6])]
    found = feature_loss(predictions=features[0], targets=features[1], feature_group=0, kept=kept)
    whole = feature_loss(predictions=features[0], targets=features[1], feature_group=0)
    np.testing.assert_allclose(found, [whole[0], 0], rtol=1e-6)


@pytest.fixture(scope="module")
def task():
    return TokenizerTask(tiny_tokenizer_config(*PLAIN, "model.nested=(0.0,0.9)", "train.steps=20"), 1)


def test_what_a_step_leaves_out_neither_learns_nor_counts(task):
    step, stream = jax.jit(task.step), task.batches(0)
    state, total = jax.jit(task.init)(jax.random.key(0)), None
    left_out = 0
    for _ in range(8):
        before = state.params["quantizer"]["codebooks"]
        state, metrics = step(state, {"teachers": {}}, next(stream))
        counted = float(jnp.sum(metrics["codes"].counts[1]))
        if not counted:
            left_out += 1
            moments = state.opt_state[1][0].mu["quantizer"]["codebooks"]
            if total is None:  # no step that kept it came before
                np.testing.assert_array_equal(before[1], state.params["quantizer"]["codebooks"][1])
                assert not np.any(moments[1])
            assert metrics["codebook"].count[1] == 0
        else:
            total = counted
            assert metrics["codebook"].count[1] == 1
        assert np.any(before[0] != state.params["quantizer"]["codebooks"][0])
    assert 0 < left_out <= 8
