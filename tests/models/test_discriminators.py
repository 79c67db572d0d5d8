"""Both discriminators against the published model's logits; their names, both directions."""

import jax
import numpy as np
import pytest
from support import golden_data

from fqgan_jax.interop import export_discriminator, import_discriminator
from fqgan_jax.models.discriminators import PatchDiscriminator, StyleDiscriminator, blur

KINDS = {"discriminator": PatchDiscriminator(), "stylegan": StyleDiscriminator()}


def state_of(kind: str) -> dict[str, np.ndarray]:
    """The golden tensors without the golden file's prefix; buffers are drawn too, and must not matter."""
    shapes = golden_data.shapes("discriminators")
    names = [name for name in shapes if name.startswith(f"{kind}.")]
    return {name.removeprefix(f"{kind}."): golden_data.weight(name, shapes[name]) for name in names}


@pytest.mark.parametrize("kind", KINDS)
def test_published_logits(kind):
    module, golden = KINDS[kind], golden_data.arrays("losses")
    params = import_discriminator(state_of(kind), module, 64)
    real = golden_data.image((2, 64, 64, 3))
    fake = np.clip(real + 0.3 * golden_data.image((2, 64, 64, 3), 100), -1, 1)
    apply = jax.jit(module.apply)
    logits = [np.asarray(apply({"params": params}, images)) for images in (real, fake)]
    if kind == "discriminator":
        expected = [golden["patchgan_logits_real"], golden["patchgan_logits_fake"]]
    else:
        expected = np.moveaxis(golden["stylegan_logits"], 1, 0)[..., None]
    for value, golden_value in zip(logits, expected, strict=True):
        assert golden_data.relative_error(value, golden_value) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_shapes(kind):
    state, module = state_of(kind), KINDS[kind]
    exported = export_discriminator(import_discriminator(state, module, 64), module, 64)
    assert {name: x.shape for name, x in exported.items()} == {name: x.shape for name, x in state.items()}
    for name in state:
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked", "downsample.0.f")):
            np.testing.assert_array_equal(exported[name], state[name], err_msg=name)


def test_blur_mirrors_edges():
    x = np.random.default_rng(0).standard_normal((1, 5, 6, 2))
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    expected = sum(kernel[i, j] * padded[:, i : i + 5, j : j + 6] for i in range(3) for j in range(3))
    np.testing.assert_allclose(blur(x), expected, rtol=1e-5, atol=1e-6)
