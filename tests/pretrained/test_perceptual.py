"""Perceptual networks: LPIPS against the published implementation's numbers (tests/golden/README.md), and others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_data, golden_vgg
from support.tiny_configs import tiny_tokenizer_config

from fqgan_jax.errors import UserError
from fqgan_jax.losses.tokenizer_losses import perceptual_loss
from fqgan_jax.pretrained.efficientnet_lite import EfficientNetLite0, preprocess
from fqgan_jax.pretrained.lpips import LPIPS, import_lpips
from fqgan_jax.pretrained.perceptual import perceptual_networks
from fqgan_jax.training.from_config import perceptual_network

pytestmark = pytest.mark.usefixtures("lite")


@pytest.fixture(scope="module")
def params():
    return import_lpips(golden_vgg.features(), golden_vgg.heads())


@pytest.fixture(scope="module")
def pair():
    real = golden_data.image((2, 64, 64, 3))
    return np.clip(real + 0.3 * golden_data.image((2, 64, 64, 3), 100), -1, 1), real


def test_lpips_of_the_golden_pair(params, pair):
    fake, real = pair
    distance = LPIPS().apply({"params": params}, fake, real)
    assert golden_data.relative_error(distance, golden_data.arrays("losses")["lpips"]) < 1e-4


def test_bfloat16_stays_close_and_returns_float32(params, pair):
    distance = LPIPS(dtype=jnp.bfloat16).apply({"params": params}, *pair)
    assert distance.dtype == jnp.float32
    assert 0 < golden_data.relative_error(distance, golden_data.arrays("losses")["lpips"]) < 0.02


@pytest.fixture(scope="module")
def value_and_gradients():
    """Jitted (params, fake, real) -> loss of the pair, summed, and its gradients at both sides, compiled once."""

    def loss(params, fake, real):
        def distance(a, b):
            return LPIPS().apply({"params": params}, a, b)

        return len(real) * perceptual_loss(reconstruction=fake, images=real, perceptual_distance=distance)

    return jax.jit(jax.value_and_grad(loss, (1, 2)))


def test_gradient_reaches_the_reconstruction_alone(params, pair, value_and_gradients):
    fake, real = (images[:, :16, :16] for images in pair)
    _, (to_fake, to_real) = value_and_gradients(params, fake, real)
    assert not np.any(to_real)
    # Against a difference quotient along the gradient's own direction.
    length = np.linalg.norm(to_fake)
    step = 0.01 * np.asarray(to_fake) / length
    ahead, behind = (value_and_gradients(params, fake + sign * step, real)[0] for sign in (1, -1))
    np.testing.assert_allclose((ahead - behind) / 0.02, length, rtol=0.02)


def test_positions_without_any_active_feature_have_a_finite_gradient(params, pair, value_and_gradients):
    dead = jax.tree.map(lambda leaf: leaf if leaf.ndim > 1 else leaf - 100, params)
    value, (to_fake, _) = value_and_gradients(dead, *(images[:, :16, :16] for images in pair))
    assert value == 0
    np.testing.assert_array_equal(to_fake, 0)


@pytest.mark.slow
def test_a_classifiers_distance_is_that_of_its_logits(pair):
    row = perceptual_networks["efficientnet-lite0"]
    params = jax.jit(row.init)(jax.random.key(0))

    @jax.jit
    def distance_and_logits(fake, real):
        logits = [EfficientNetLite0().apply({"params": params["classifier"]}, preprocess(x)) for x in (fake, real)]
        return row.distance(params, fake, real), logits

    distance, (fake, real) = distance_and_logits(*(images[:, :32, :32] for images in pair))
    assert distance.shape == (2,)
    np.testing.assert_allclose(distance, np.mean((fake - real) ** 2, axis=-1), rtol=1e-5)
    assert np.all(distance > 0)


def test_a_config_names_its_network():
    def network(*fields):
        return perceptual_network(tiny_tokenizer_config(*fields))

    assert network("loss.perceptual=0") is None
    assert network("loss.perceptual=1.0").module == LPIPS(dtype=jnp.dtype("float32"))
    fields = ("loss.perceptual=1.0", "loss.perceptual_network=efficientnet-lite0", "frozen_dtype=bfloat16")
    assert network(*fields).module == perceptual_networks["efficientnet-lite0"].with_dtype("bfloat16").module
    with pytest.raises(UserError, match=r"loss\.perceptual_network is 'vgg': there is no perceptual network 'vgg'"):
        network("loss.perceptual_network=vgg")
