"""Batches depend on seed and step alone."""

import numpy as np
import pytest

from fqgan_jax.data.codes import CodeCache, code_batches
from fqgan_jax.data.loader import evaluation_batches, image_batches
from fqgan_jax.data.sources import ImageFolder, Skipped
from fqgan_jax.teachers.hog import hog_features


def batches(folder, start, count, process=(0, 1), threads=2, seed=3):
    source = ImageFolder(folder, "train", 0)
    teachers = [("hog", hog_features)]
    stream = image_batches(source, 16, 8, seed, start, Skipped(), teachers, threads, process)
    return [next(stream) for _ in range(count)]


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_a_batch_is_a_function_of_seed_and_step(image_folder):
    whole = batches(image_folder, 0, 7)
    for step in (2, 6):
        assert_same(batches(image_folder, step, 1, threads=1)[0], whole[step])
    assert np.any(batches(image_folder, 0, 1, seed=4)[0]["image"] != whole[0]["image"])


def test_hosts_read_slices_of_the_global_batch(image_folder):
    whole = batches(image_folder, 1, 2)
    for step in range(2):
        parts = [batches(image_folder, 1, 2, (host, 4))[step] for host in range(4)]
        assert_same({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, whole[step])


def test_every_image_once_an_epoch(image_folder):
    labels = np.concatenate([batch["label"] for batch in batches(image_folder, 0, 3)])
    assert sorted(labels) == [0] * 12 + [1] * 12


def test_a_feature_describes_its_own_crop(image_folder):
    batch = batches(image_folder, 0, 1)[0]
    for image, feature in zip(batch["image"], batch["feature/hog"], strict=True):
        np.testing.assert_array_equal(feature, hog_features(image))


@pytest.mark.parametrize("batch_size", [1, 5, 24, 100])
def test_evaluation_sees_every_image_once(image_folder, batch_size):
    source = ImageFolder(image_folder, "train", 0)
    seen = list(evaluation_batches(source, 16, batch_size, Skipped()))
    assert {len(batch["image"]) for batch in seen} == {batch_size}
    assert sum(batch["mask"].sum() for batch in seen) == 24


def test_code_cache_keeps_labels_crops_and_codes_together(code_cache, trained_tokenizer, image_folder):
    from fqgan_jax.api import load_tokenizer
    from fqgan_jax.data.transforms import ten_crops

    cache, tokenizer = CodeCache(code_cache), load_tokenizer(trained_tokenizer)
    source = ImageFolder(image_folder, "train")
    assert cache.manifest.tokenizer == tokenizer.fingerprint
    assert cache.manifest.count == len(cache) == len(source)
    for index in (0, len(source) - 1):
        label, codes = cache[index]
        assert label == source.label(index)
        np.testing.assert_array_equal(codes, tokenizer.encode(ten_crops(source.read(index), 16)))
    batch = next(code_batches(cache, 8, 0, 0, 1))
    everything = [codes for _, codes in (cache[i] for i in range(len(cache)))]
    for label, codes in zip(batch["label"], batch["codes"], strict=True):
        holders = [i for i, crops in enumerate(everything) if (crops == codes).all((1, 2, 3)).any()]
        assert label in {source.label(i) for i in holders}
