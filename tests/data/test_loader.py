"""Batches depend on seed and step alone."""

import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fqgan_jax.caches.codes import CodeCache, code_batches
from fqgan_jax.data.loader import evaluation_batches, image_batches
from fqgan_jax.data.skipping import Skipped, largest_skipped
from fqgan_jax.data.sources.folder import ImageFolder
from fqgan_jax.data.stream import Stream
from fqgan_jax.errors import UserError
from fqgan_jax.evaluation.image_set import ImageSet
from fqgan_jax.pretrained.hog import hog_features
from fqgan_jax.sharding.mesh import BatchSlice


def serve(source, stream, skipped=None, **fields):
    """16x16 batches of a source."""
    return image_batches(source, stream, image_size=16, skipped=skipped or Skipped(), **fields)


def batches(folder, start, count, **fields):
    """`count` batches of eight with HOG features from step `start` on; `fields` are those of `Stream`."""
    stream = Stream(**({"batch_size": 8, "seed": 3, "start_step": start} | fields))
    served = serve(
        ImageFolder(str(folder), "train", validation_fraction=0), stream, feature_functions={"hog": hog_features}
    )
    return list(itertools.islice(served, count))


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_a_batch_is_a_function_of_seed_and_step(image_folder):
    whole = batches(image_folder, 0, 7)
    for step in (2, 6):
        assert_same(batches(image_folder, step, 1, num_threads=1)[0], whole[step])
    assert np.any(batches(image_folder, 0, 1, seed=4)[0]["image"] != whole[0]["image"])


@pytest.mark.slow
def test_worker_processes_give_the_batches_of_threads(image_folder):
    whole = batches(image_folder, 1, 5)
    for found, expected in zip(batches(image_folder, 1, 5, num_workers=2), whole, strict=True):
        assert_same(found, expected)


@pytest.mark.slow
def test_a_killed_worker_process_is_replaced(image_folder):
    expected = batches(image_folder, 0, 12)
    stream = Stream(batch_size=8, seed=3, num_workers=1)
    stream = serve(
        ImageFolder(str(image_folder), "train", validation_fraction=0), stream, feature_functions={"hog": hog_features}
    )
    found = [next(stream)]
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    found += [next(stream) for _ in range(11)]
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_unreadable_images_are_replaced_named_and_counted(image_folder, tmp_path, workers, caplog):
    shutil.copytree(image_folder, tmp_path / "data")
    damaged = [tmp_path / "data" / "red" / f"{i:02d}.png" for i in (3, 4, 11)]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:300])
    source, skipped = ImageFolder(str(tmp_path / "data"), "train", validation_fraction=0), Skipped()
    stream = serve(source, Stream(batch_size=8, num_workers=workers), skipped)
    for _ in range(3):  # an epoch
        batch = next(stream)
        assert set(batch) == {"image", "label"}
        assert batch["image"].shape == (8, 16, 16, 3)
    assert set(skipped.reasons) == set(map(str, damaged))
    assert all("truncated" in reason for reason in skipped.reasons.values())
    assert caplog.text.count("Skipped") == 3


def test_too_many_unreadable_images_end_the_run(image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / "data")
    for i in range(3):
        (tmp_path / "data" / "red" / f"{i:02d}.png").write_bytes(b"")
    source = ImageFolder(str(tmp_path / "data"), "train", validation_fraction=0)
    stream = serve(source, Stream(batch_size=8), Skipped(limit=2))
    with pytest.raises(UserError, match=r"Skipped 3 unreadable .* more than the 2 allowed by data.largest_skipped"):
        list(itertools.islice(stream, 3))


@pytest.mark.parametrize(("count", "fraction", "limit"), [(24, 0.01, 10), (5000, 0.01, 50), (5000, 0, 0)])
def test_the_limit_is_a_fraction_and_ten_at_least(count, fraction, limit):
    assert largest_skipped(count, fraction) == limit


def test_full_decoding_is_exact(tmp_path):
    """A JPEG file decoded at full scale gives the very crops of a lossless copy; at reduced scale almost."""
    rng = np.random.default_rng(0)
    for name in ("jpg", "png"):
        (tmp_path / name).mkdir()
    for i in range(4):
        noise = Image.fromarray(rng.integers(0, 255, (9, 12, 3), np.uint8))
        image = noise.resize((512, 384), Image.Resampling.BICUBIC)
        image.save(tmp_path / "jpg" / f"{i}.jpg")
        with Image.open(tmp_path / "jpg" / f"{i}.jpg") as decoded:
            decoded.save(tmp_path / "png" / f"{i}.png")

    def crops(folder, full_decode):
        source = ImageFolder(str(tmp_path / folder), "train", validation_fraction=0)
        stream = Stream(batch_size=4)
        served = image_batches(source, stream, image_size=32, skipped=Skipped(), full_decode=full_decode)
        return next(served)["image"]

    exact = crops("png", False)
    np.testing.assert_array_equal(crops("jpg", True), exact)
    reduced = np.abs(crops("jpg", False).astype(int) - exact)
    assert 0 < reduced.mean() < 2


def test_hosts_read_slices_of_the_global_batch(image_folder):
    whole = batches(image_folder, 1, 2)
    for step in range(2):
        parts = [batches(image_folder, 1, 2, batch_slice=BatchSlice(index=host, count=4))[step] for host in range(4)]
        assert_same({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, whole[step])


def test_every_image_once_an_epoch(image_folder):
    labels = np.concatenate([batch["label"] for batch in batches(image_folder, 0, 3)])
    assert sorted(labels) == [0] * 12 + [1] * 12


def test_a_feature_describes_its_own_crop(image_folder):
    batch = batches(image_folder, 0, 1)[0]
    for image, feature in zip(batch["image"], batch["feature/hog"], strict=True):
        np.testing.assert_array_equal(feature, hog_features(image))


class RecordingSource(ImageFolder):
    """Remembers how many reads ran at the same time."""

    running, most, lock = 0, 0, threading.Lock()

    def read(self, index, shortest_side=None):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(0.02)
        image = super().read(index, shortest_side)
        with self.lock:
            self.running -= 1
        return image


@pytest.mark.parametrize("num_threads", [1, 3])
def test_evaluation_reads_with_so_many_threads(image_folder, num_threads):
    source = RecordingSource(str(image_folder), "train", validation_fraction=0)
    images = ImageSet(
        name="images", split="all", source=source, size=16, limit=None, skipped=Skipped(), num_threads=num_threads
    )
    assert len(list(images.batches(8))) == 3
    assert source.most == num_threads


# A user's script: no fqgan command, which could set anything, and batches still on the device at its end.
SCRIPT = """
import itertools, sys
import jax
from jax.sharding import SingleDeviceSharding
from fqgan_jax.data import Skipped, open_source
from fqgan_jax.data.loader import image_batches, to_devices
from fqgan_jax.data.stream import Stream

def main():
    stream = Stream(batch_size=8, num_workers=1)
    batches = image_batches(open_source(sys.argv[1], "train"), stream, image_size=16, skipped=Skipped())
    held = list(itertools.islice(to_devices(batches, SingleDeviceSharding(jax.devices()[0])), 3))
    assert not any("resource_tracker" in option for option in sys.warnoptions)

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_worker_processes_leak_no_shared_memory(image_folder, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    run = [sys.executable, tmp_path / "script.py", image_folder]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    finished = subprocess.run(run, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert "resource_tracker" not in finished.stderr


@pytest.mark.parametrize("batch_size", [1, 5, 24, 100])
def test_evaluation_sees_every_image_once(image_folder, batch_size):
    source = ImageFolder(str(image_folder), "train", validation_fraction=0)
    seen = list(evaluation_batches(source, image_size=16, batch_size=batch_size, skipped=Skipped()))
    assert {len(batch["image"]) for batch in seen} == {batch_size}
    assert sum(batch["mask"].sum() for batch in seen) == 24


def test_code_cache_keeps_labels_crops_and_codes_together(code_cache, trained_tokenizer, image_folder):
    from fqgan_jax.api import load_tokenizer
    from fqgan_jax.data.transforms import ten_crops

    cache, tokenizer = CodeCache(code_cache), load_tokenizer(trained_tokenizer)
    source = ImageFolder(str(image_folder), "train")
    assert cache.manifest.tokenizer == tokenizer.fingerprint
    assert cache.manifest.count == len(cache) == len(source)
    for index in (0, len(source) - 1):
        label, codes = cache[index]
        assert label == source.label(index)
        np.testing.assert_array_equal(codes, tokenizer.encode(ten_crops(source.read(index), 16)))
    batch = next(code_batches(cache, Stream(batch_size=8)))
    everything = [codes for _, codes in (cache[i] for i in range(len(cache)))]
    for label, codes in zip(batch["label"], batch["codes"], strict=True):
        holders = [i for i, crops in enumerate(everything) if (crops == codes).all((1, 2, 3)).any()]
        assert label in {source.label(i) for i in holders}
