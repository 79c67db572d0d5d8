"""ONNX models compute what the tokenizer computes; models that do not are found out."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_models import IMAGE_SIZE, tiny_tokenizer

from fqgan_jax.errors import UserError
from fqgan_jax.export.onnx import CODE_TOLERANCE, TOLERANCE, check_models, run_model, tokenizer_models

pytest.importorskip("jax2onnx")
pytest.importorskip("onnxruntime")

IMAGES = np.random.default_rng(1).uniform(-1, 1, (2, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def dual():
    tokenizer = tiny_tokenizer(2)
    return tokenizer, tokenizer_models(tokenizer.module, tokenizer.params, batch_size=2)


def assert_same(tokenizer, models, images):
    codes, latents = run_model(models["encode"], {"images": images})
    assert codes.dtype == np.int32
    assert len(np.unique(codes)) > 2
    np.testing.assert_array_equal(codes, tokenizer.encode(images))
    np.testing.assert_allclose(latents, tokenizer.latents(images), atol=1e-4)
    (decoded,) = run_model(models["decode"], {"codes": codes})
    np.testing.assert_allclose(decoded, tokenizer.decode(codes), atol=1e-4)


def test_adapters(dual, capfd):
    assert_same(*dual, IMAGES)
    # onnxruntime writes its warnings there.
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", [tiny_tokenizer(1), tiny_tokenizer(3, "split", normalized=False, chunk_tokens=4)])
def test_others(tokenizer):
    assert_same(tokenizer, tokenizer_models(tokenizer.module, tokenizer.params, batch_size=1), IMAGES[:1])


def test_bfloat16_is_computed_in_float32(dual):
    tokenizer, models = dual
    half = tokenizer.module.clone(dtype=jnp.dtype("bfloat16"))
    converted = tokenizer_models(half, tokenizer.params, batch_size=2)
    for name, inputs in (("encode", {"images": IMAGES}), ("decode", {"codes": tokenizer.encode(IMAGES)})):
        inputs = {name: np.asarray(value) for name, value in inputs.items()}
        for value, expected in zip(run_model(converted[name], inputs), run_model(models[name], inputs), strict=True):
            np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize(
    ("differs", "path", "change"),
    [
        (0, ("heads", "heads", "to_latent", "bias"), lambda leaf: leaf + 0.01),
        (1, ("decoder", "conv_out", "bias"), lambda leaf: leaf + 0.01),
        (2, ("quantizer", "codebooks"), lambda leaf: leaf[:, ::-1]),
    ],
)
def test_the_check_finds_a_difference(dual, differs, path, change):
    """Of latents, images and codes."""
    tokenizer, models = dual
    check_models(models, tokenizer.module, tokenizer.params, images=IMAGES)
    params = jax.tree_util.tree_map_with_path(
        lambda keys, leaf: change(leaf) if tuple(key.key for key in keys) == path else leaf, tokenizer.params
    )
    with pytest.raises(UserError, match="ONNX does not compute what JAX does") as error:
        check_models(models, tokenizer.module, params, images=IMAGES)
    # The three differences in the sentence, latents, images and codes.
    found = [float(number) for number in re.findall(r"\d\.\de[+-]\d+", str(error.value))]
    assert len(found) == 3
    assert found[differs] > (TOLERANCE, TOLERANCE, CODE_TOLERANCE)[differs]
