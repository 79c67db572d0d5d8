"""Work folders, caches and exports that an earlier version wrote (commit 07a1250) load, and runs go on from them."""

import json
import shutil
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

import fqgan_jax
from fqgan_jax.caches.codes import CodeCache
from fqgan_jax.caches.teacher_features import FeatureCache
from fqgan_jax.config import from_json
from fqgan_jax.data.sources import open_source
from fqgan_jax.pretrained.hog import hog_features
from fqgan_jax.training import train
from fqgan_jax.training.logging import read_log

ARCHIVE = Path(__file__).parent / "artefacts" / "written_by_07a1250.tar.gz"


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory):
    """The folder of everything that was written, and what the version that wrote it computed from it."""
    folder = tmp_path_factory.mktemp("artefacts")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def expected(artefacts):
    with np.load(artefacts / "expected.npz") as arrays:
        return dict(arrays) | json.loads((artefacts / "expected.json").read_text())


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_native", "tokenizer_safetensors/ema.safetensors"])
def test_tokenizers_compute_what_they_did(artefacts, expected, name):
    tokenizer = fqgan_jax.load_tokenizer(artefacts / name)
    np.testing.assert_allclose(tokenizer.latents(expected["images"]), expected["latents"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(tokenizer.encode(expected["images"]), expected["codes"])
    np.testing.assert_allclose(tokenizer.decode(expected["codes"]), expected["decoded"], rtol=1e-4, atol=1e-5)


def test_the_fingerprint_stays(artefacts, expected):
    """Caches and generators know their tokenizer by it."""
    assert fqgan_jax.load_tokenizer(artefacts / "tokenizer").fingerprint == expected["fingerprint"]


@pytest.mark.parametrize("name", ["generator", "generator_native", "generator_safetensors/model.safetensors"])
def test_generators_compute_what_they_did(artefacts, expected, name):
    generator = fqgan_jax.load_generator(artefacts / name)
    generator.check_tokenizer(fqgan_jax.load_tokenizer(artefacts / "tokenizer"))
    logits = generator.logits(expected["codes"], np.array([0, 1, 0, 1]))
    np.testing.assert_allclose(logits, expected["logits"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(generator.sample([0, 1], key=jax.random.key(0)), expected["samples"])


def test_the_code_cache_holds_the_codes_of_its_images(artefacts):
    cache, tokenizer = CodeCache(artefacts / "codes"), fqgan_jax.load_tokenizer(artefacts / "tokenizer")
    assert cache.manifest.tokenizer == tokenizer.fingerprint
    assert [cache[i][0] for i in range(len(cache))] == [0] * 4 + [1] * 4
    assert all(codes.shape == (1, *tokenizer.module.grid, 2) for _, codes in map(cache.__getitem__, range(len(cache))))


def test_the_feature_cache_holds_the_features_of_its_crops(artefacts):
    from fqgan_jax.data.transforms import crop_at

    source = open_source(str(artefacts / "images"), "train", validation_fraction=0)
    cache = FeatureCache(artefacts / "features")
    cache.check_source(source, "images", "train")
    record = cache[5]
    crop = crop_at(source.read(5), 16, record.crop_boxes[1])
    np.testing.assert_allclose(record.features["hog"][1], hog_features(crop), rtol=1e-6)


@pytest.mark.parametrize("kind", [pytest.param("tokenizer", marks=pytest.mark.slow), "generator"])
def test_runs_go_on_as_if_nothing_had_changed(artefacts, expected, kind, tmp_path, monkeypatch):
    """Losses of steps 3 and 4 are those of the version that made steps 1 and 2, without an interruption."""
    monkeypatch.chdir(artefacts)
    workdir = tmp_path / kind
    shutil.copytree(artefacts / kind, workdir)
    train(from_json((workdir / "config.json").read_text()), workdir)
    ours = {line["step"]: line for line in read_log(workdir) if "gradient_norm" in line}
    theirs = {line["step"]: line for line in expected[kind] if "gradient_norm" in line}
    for step in (3, 4):
        shared = [name for name in theirs[step] if "per_second" not in name]
        assert set(shared) <= set(ours[step])
        for name in shared:
            assert ours[step][name] == pytest.approx(theirs[step][name], rel=1e-4, abs=1e-6), (step, name)
