"""Evaluations of images, tokenizers and generators: the same numbers on any devices and batches, each example once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_vgg, stand_in_features
from support.layouts import assert_same, each_layout

from fqgan_jax.api import load_generator, load_tokenizer
from fqgan_jax.data.pixels import to_float, to_uint8
from fqgan_jax.errors import UserError
from fqgan_jax.evaluation.features import FeatureNetworks
from fqgan_jax.evaluation.generator import evaluate_generator
from fqgan_jax.evaluation.image_set import open_images
from fqgan_jax.evaluation.images import evaluate_images
from fqgan_jax.evaluation.metrics import psnr
from fqgan_jax.evaluation.metrics.frechet import frechet_distance, gaussian
from fqgan_jax.evaluation.networks import EvaluationNetworks, MetricNetwork
from fqgan_jax.evaluation.reference import open_reference, reference_of, save_statistics
from fqgan_jax.evaluation.tokenizer import evaluate_tokenizer
from fqgan_jax.pretrained.lpips import LPIPS, import_lpips

SAMPLING = {"guidance": [2.0], "temperature": [1.0], "top_k": [0], "top_p": [1.0]}


NETWORKS = stand_in_features.networks()
NETWORK = NETWORKS.features["inception"]


def test_images_on_any_devices_and_batches(image_folder, monkeypatch):
    blue, red = (open_images(str(image_folder / name), size=16) for name in ("blue", "red"))
    all_results = []
    for batch_size in each_layout(monkeypatch):
        reference = open_reference(red.name, NETWORKS.features, size=16, batch_size=batch_size)
        measured = evaluate_images(blue, reference=reference, networks=NETWORKS, batch_size=batch_size)
        assert (
            len(measured.features) == measured.evaluation.protocol["data"]["count"] == reference.protocol["count"] == 12
        )
        all_results.append(measured.evaluation.results)
    assert_same(all_results)
    # Against features taken image by image.
    rows = [next(images.batches(12))["image"] for images in (blue, red)]
    pool = [np.concatenate([NETWORK.apply(NETWORK.params, row[i : i + 1])["pool"] for i in range(12)]) for row in rows]
    np.testing.assert_allclose(all_results[0]["fid"], frechet_distance(*map(gaussian, pool)), rtol=1e-4)
    assert all_results[0]["fid"] > 0.1


def test_a_set_against_itself(image_folder):
    images = open_images(str(image_folder), size=16)
    reference = open_reference(str(image_folder), NETWORKS.features, size=16, batch_size=5)
    results = evaluate_images(images, reference=reference, networks=NETWORKS, batch_size=8).evaluation.results
    assert results["fid"] < 1e-3
    assert results["sfid"] < 1e-3
    assert results["precision"] == results["recall"] == 1


@pytest.mark.slow
def test_tokenizer_on_any_devices_and_batches(trained_tokenizer, image_folder, monkeypatch):
    tokenizer, images = load_tokenizer(trained_tokenizer, dtype="float32"), open_images(str(image_folder), size=16)
    all_results = []
    for batch_size in each_layout(monkeypatch):
        measured = evaluate_tokenizer(tokenizer, images, reference=None, networks=NETWORKS, batch_size=batch_size)
        all_results.append(measured.evaluation.results)
    assert_same(all_results)
    assert measured.evaluation.missing["lpips"] == "run `fqgan weights fetch vgg16`"
    assert measured.evaluation.protocol["data"]["count"] == 24
    pixels = next(images.batches(24))["image"]
    decoded = tokenizer.decode(tokenizer.encode(pixels))
    np.testing.assert_allclose(measured.evaluation.results["psnr"], np.mean(psnr(decoded, to_float(pixels))), rtol=1e-5)
    pool = [gaussian(NETWORK.apply(NETWORK.params, x)["pool"]) for x in (np.asarray(to_uint8(decoded)), pixels)]
    np.testing.assert_allclose(measured.evaluation.results["rfid"], frechet_distance(*pool), rtol=1e-4)
    codes = np.asarray(tokenizer.encode(pixels))
    assert measured.evaluation.results["usage/1"] == pytest.approx(len(np.unique(codes[..., 1])) / 32)


@pytest.mark.slow
def test_generator_on_any_devices_and_batches(trained_generator, trained_tokenizer, image_folder, monkeypatch):
    generator, tokenizer = load_generator(trained_generator), load_tokenizer(trained_tokenizer, dtype="float32")
    reference = open_reference(str(image_folder), NETWORKS.features, size=16, batch_size=24)
    all_results = []
    for batch_size in each_layout(monkeypatch):
        measured = evaluate_generator(
            generator,
            tokenizer,
            count=11,
            seed=3,
            sampling=SAMPLING,
            reference=reference,
            networks=NETWORKS,
            batch_size=batch_size,
        )
        all_results.append(measured.evaluation.results)
    assert_same(all_results)
    assert {"gfid", "sfid", "precision", "recall", "inception_score", "usage/0"} <= measured.evaluation.results.keys()
    assert measured.evaluation.protocol["sampling"] == SAMPLING
    # The very samples that a user draws with the same key, classes in turn.
    codes = generator.sample(np.arange(11) % 2, key=jax.random.key(3), **SAMPLING)
    pixels = to_uint8(np.asarray(tokenizer.decode(codes)))
    np.testing.assert_allclose(measured.features.features(), NETWORK.apply(NETWORK.params, pixels)["pool"], atol=1e-5)


def test_without_weights_the_rest_is_computed(trained_tokenizer, trained_generator, image_folder):
    reasons = {"inception": "fetch it", "lpips": "fetch those", "efficientnet-lite0": "install it"}
    nothing = EvaluationNetworks(missing=reasons | {"class_agreement": "install it"})
    tokenizer, images = load_tokenizer(trained_tokenizer), open_images(str(image_folder), size=16)
    measured = evaluate_tokenizer(tokenizer, images, reference=None, networks=nothing, batch_size=24)
    assert measured.features is None
    inception = dict.fromkeys(("rfid", "inception_score"), "fetch it")
    lite = dict.fromkeys(("fd_lite0", "class_agreement"), "install it")
    assert measured.evaluation.missing == inception | lite | {"lpips": "fetch those"}
    assert {"psnr", "ssim", "perplexity/0", "mutual_information/0-1"} <= measured.evaluation.results.keys()
    assert "Missing rfid, inception_score: fetch it" in measured.evaluation.table()
    measured = evaluate_generator(
        load_generator(trained_generator),
        tokenizer,
        count=2,
        seed=0,
        sampling=SAMPLING,
        reference=None,
        networks=nothing,
        batch_size=2,
    )
    assert measured.evaluation.missing.keys() == {
        *("gfid", "sfid", "precision", "recall", "inception_score", "fd_lite0", "lite0_score")
    }
    assert measured.evaluation.results.keys() == {f"{n}/{k}" for n in ("usage", "perplexity") for k in (0, 1)} | {
        "mutual_information/0-1"
    }


def test_lpips_of_reconstructions(trained_tokenizer, image_folder):
    params = import_lpips(golden_vgg.features(), golden_vgg.heads())
    networks = EvaluationNetworks(
        reconstruction={"lpips": MetricNetwork(params=params, sha256={"vgg16": "a"})},
        missing={"inception": "fetch it"},
    )
    tokenizer, images = load_tokenizer(trained_tokenizer), open_images(str(image_folder), size=16, limit=3)
    measured = evaluate_tokenizer(tokenizer, images, reference=None, networks=networks, batch_size=8)
    pixels = to_float(next(images.batches(3))["image"])
    decoded = tokenizer.decode(tokenizer.encode(pixels))
    expected = np.mean(jax.jit(LPIPS().apply)({"params": params}, decoded, pixels))
    np.testing.assert_allclose(measured.evaluation.results["lpips"], expected, rtol=1e-4)
    assert measured.evaluation.protocol["lpips"] == {"vgg16": "a"}


def test_statistics_are_stored_and_those_of_other_weights_refused(image_folder, tmp_path):
    images = open_images(str(image_folder / "blue"), size=16)
    measured = evaluate_images(images, reference=None, networks=NETWORKS, batch_size=12)
    assert measured.evaluation.missing["fid"].endswith("give --reference")
    save_statistics(tmp_path / "blue.npz", measured.features, measured.evaluation.protocol)
    stored = open_reference(str(tmp_path / "blue.npz"), NETWORKS.features, size=16, batch_size=12)
    assert stored.protocol["statistics"]["data"]["count"] == 12
    measured = evaluate_images(images, reference=stored, networks=NETWORKS, batch_size=5)
    assert measured.evaluation.results["fid"] < 1e-9
    assert measured.evaluation.results["sfid"] < 1e-9
    assert "statistics only" in measured.evaluation.missing["recall"]
    with pytest.raises(UserError, match="other weights of inception"):
        open_reference(
            str(tmp_path / "blue.npz"),
            FeatureNetworks({"inception": dataclasses.replace(NETWORK, sha256="6" * 64)}),
            size=16,
            batch_size=12,
        )


def test_adms_reference_batches(image_folder, tmp_path):
    images = open_images(str(image_folder / "blue"), size=16)
    pixels = next(images.batches(12))["image"]
    mean, covariance = np.full(12, 0.1), np.eye(12)
    np.savez(tmp_path / "adm.npz", arr_0=pixels, mu=mean, sigma=covariance)
    reference = open_reference(str(tmp_path / "adm.npz"), NETWORKS.features, size=99, batch_size=5)
    measured = evaluate_images(images, reference=reference, networks=NETWORKS, batch_size=5)
    # The distance is that from the statistics; precision and recall are those of the images beside them.
    expected = frechet_distance(
        measured.features.gaussians()["pool"], reference.gaussians["pool"]._replace(mean=mean, covariance=covariance)
    )
    assert measured.evaluation.results["fid"] == expected > 1
    assert measured.evaluation.results["precision"] == measured.evaluation.results["recall"] == 1
    assert "mu_s" in measured.evaluation.missing["sfid"]
    assert reference.protocol["precision_recall_images"]["size"] == 16


def test_damaged_images_are_named_and_not_counted(image_folder, tmp_path):
    for path in sorted((image_folder / "red").iterdir())[:3]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "01.png").write_bytes(b"broken")
    images = open_images(str(tmp_path), size=16)
    measured = evaluate_images(images, reference=None, networks=NETWORKS, batch_size=8)
    assert len(measured.features) == measured.evaluation.protocol["data"]["count"] == 2
    assert measured.evaluation.protocol["data"]["skipped"] == [str(tmp_path / "01.png")]
    for path in tmp_path.iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match="None of the images"):
        evaluate_images(open_images(str(tmp_path), size=16), reference=None, networks=NETWORKS, batch_size=8)


def test_pixels_on_devices_and_hosts_are_rounded_alike():
    values = np.linspace(-1.1, 1.1, 999).astype(np.float32)
    np.testing.assert_array_equal(to_uint8(jnp.asarray(values)), to_uint8(values))
    assert to_uint8(np.array([-1, 0, 0.9999, 1], np.float32)).tolist() == [0, 128, 255, 255]
    # Also where the compiler could go from floats to floats without the integers between.
    back = jax.jit(lambda x: to_uint8(x).astype(jnp.float32).reshape(27, 37).sum(1))
    np.testing.assert_array_equal(back(values), to_uint8(values).astype(np.float32).reshape(27, 37).sum(1))
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(to_float(every)), every)


def test_reference_of_one_image_is_refused(image_folder):
    images = open_images(str(image_folder), size=16, limit=1)
    measured = evaluate_images(images, reference=None, networks=NETWORKS, batch_size=8)
    with pytest.raises(UserError, match="at least two images; there are 1"):
        reference_of(measured.features, {})
