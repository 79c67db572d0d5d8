"""Numbers by EfficientNet-Lite0, with random weights: against its own features, on any devices and batches."""

import jax
import numpy as np
import pytest
from support.rows import replace_package

from fqgan_jax.api import load_tokenizer
from fqgan_jax.data.pixels import to_float, to_uint8
from fqgan_jax.evaluation.features import FeatureNetwork, FeatureNetworks, lite_features
from fqgan_jax.evaluation.image_set import open_images
from fqgan_jax.evaluation.metrics.frechet import frechet_distance, gaussian
from fqgan_jax.evaluation.networks import EvaluationNetworks, MetricNetwork, load_networks
from fqgan_jax.evaluation.reference import open_reference, save_statistics
from fqgan_jax.evaluation.tokenizer import evaluate_tokenizer
from fqgan_jax.pretrained.efficientnet_lite import EfficientNetLite0, preprocess
from fqgan_jax.sharding import passes
from fqgan_jax.sharding.mesh import make_mesh

pytestmark = pytest.mark.usefixtures("lite")


@pytest.fixture(scope="module")
def params():
    return jax.jit(EfficientNetLite0().init)(jax.random.key(0), np.zeros((1, 224, 224, 3), np.float32))["params"]


@pytest.mark.slow
def test_a_tokenizer_on_any_devices_and_batches(params, trained_tokenizer, image_folder, tmp_path, monkeypatch):
    network = FeatureNetwork(apply=lite_features, params=params, sha256="5" * 64)
    networks = EvaluationNetworks(
        features=FeatureNetworks({"efficientnet-lite0": network}),
        reconstruction={"class_agreement": MetricNetwork(params=params, sha256={})},
        missing={"inception": "fetch it", "lpips": "fetch those"},
    )
    tokenizer, images = load_tokenizer(trained_tokenizer), open_images(str(image_folder), size=16, limit=6)
    results = []
    for count, batch_size in ((8, 5), (1, 7)):
        monkeypatch.setattr(passes, "make_mesh", lambda axes, count=count: make_mesh(axes, jax.devices()[:count]))
        measured = evaluate_tokenizer(tokenizer, images, reference=None, networks=networks, batch_size=batch_size)
        results.append(measured.evaluation.results)
    np.testing.assert_allclose(list(results[0].values()), list(results[1].values()), rtol=1e-4, atol=1e-6)
    assert measured.evaluation.missing.keys() == {"rfid", "inception_score", "lpips"}

    pixels = next(images.batches(6))["image"]
    decoded = tokenizer.decode(tokenizer.encode(pixels))
    described = jax.jit(lite_features)
    features = [gaussian(np.asarray(described(params, x)["lite0"])) for x in (np.asarray(to_uint8(decoded)), pixels)]
    np.testing.assert_allclose(results[0]["fd_lite0"], frechet_distance(*features), rtol=1e-3)
    classify = jax.jit(lambda x: EfficientNetLite0().apply({"params": params}, preprocess(x)).argmax(-1))
    same = np.mean(classify(decoded) == classify(to_float(pixels)))
    np.testing.assert_allclose(results[0]["class_agreement"], same)

    save_statistics(tmp_path / "stored.npz", measured.features, measured.evaluation.protocol)
    stored = open_reference(str(tmp_path / "stored.npz"), networks.features, size=16, batch_size=6)
    measured = evaluate_tokenizer(tokenizer, images, reference=stored, networks=networks, batch_size=6)
    assert measured.evaluation.results["fd_lite0"] < 1e-6  # the statistics are those of the reconstructions


def test_without_its_package_one_reason_names_the_extra(monkeypatch):
    replace_package(monkeypatch)
    missing = load_networks(reconstruction_metrics=True).missing
    assert "fqgan-jax[lite]" in missing["efficientnet-lite0"]
    assert missing["efficientnet-lite0"] == missing["class_agreement"]
