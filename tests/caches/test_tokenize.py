"""`tokenize`: random crops, refusals; ten crops are tested with the loader, resumption with kills."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_models import IMAGE_SIZE, tiny_tokenizer

from fqgan_jax.api import Tokenizer
from fqgan_jax.caches import write_shards as cache
from fqgan_jax.caches.codes import VALIDATION, CodeCache
from fqgan_jax.caches.tokenize import tokenize, tokenize_splits
from fqgan_jax.caches.write_shards import PassSettings
from fqgan_jax.cli.main import main
from fqgan_jax.data.sources import open_source
from fqgan_jax.data.transforms import center_crop, crop_at, largest_side, random_crop
from fqgan_jax.errors import UserError
from fqgan_jax.sharding.mesh import make_mesh

SETTINGS = PassSettings(batch_size_per_device=4, num_threads=2, images_per_shard=10)
R, SEED = 2, 3


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer(2)


def write(tokenizer, image_folder, out, **fields):
    source = open_source(str(image_folder), "train", validation_fraction=0)
    return tokenize(tokenizer, source, out, **({"crops": R, "seed": SEED, "settings": SETTINGS} | fields))


@pytest.fixture(scope="module")
def folder(tokenizer, image_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("codes") / "cache"
    write(tokenizer, image_folder, out)
    return out


def test_label_crops_and_codes_of_random_crops_stay_together(tokenizer, image_folder, folder):
    codes, source = CodeCache(folder), open_source(str(image_folder), "train", validation_fraction=0)
    assert len(codes) == len(source)
    assert codes.manifest.dtype == np.uint16
    drawn = []
    for index in range(len(source)):
        image = source.read(index, largest_side(IMAGE_SIZE))
        crops = [random_crop(image, IMAGE_SIZE, np.random.default_rng([SEED, index, r])) for r in range(R)]
        stored = [crop_at(image, IMAGE_SIZE, box) for box in codes.crop_boxes(index)]
        np.testing.assert_array_equal(stored, crops)
        drawn.append(np.stack(crops))
    expected = np.asarray(tokenizer.encode(np.concatenate(drawn))).reshape(len(source), R, 4, 4, 2)
    for index in range(len(source)):
        label, found = codes[index]
        assert label == source.label(index)
        np.testing.assert_array_equal(found, expected[index])


def test_the_number_of_devices_changes_no_byte(tokenizer, image_folder, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "make_mesh", lambda axes, devices: make_mesh(axes, devices[:3]))
    write(tokenizer, image_folder, tmp_path / "three")
    written = {path.name: path.read_bytes() for path in (tmp_path / "three").iterdir()}
    assert written == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_another_tokenizer_does_not_go_on(tokenizer, image_folder, tmp_path, monkeypatch):
    """The first shard is finished when the second one's first image ends the run."""
    crop_at, out = cache.crop_at, tmp_path / "codes"

    def failing(*arguments):
        if list(out.glob("*.array_record")):
            raise ZeroDivisionError
        return crop_at(*arguments)

    monkeypatch.setattr(cache, "crop_at", failing)
    settings = PassSettings(batch_size_per_device=2, num_threads=1, images_per_shard=1)
    monkeypatch.setattr(cache, "make_mesh", lambda axes, devices: make_mesh(axes, devices[:1]))
    with pytest.raises(ZeroDivisionError):
        write(tokenizer, image_folder, out, settings=settings)
    monkeypatch.undo()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.array_record")}
    assert before
    other = Tokenizer(tokenizer.module, jax.tree.map(jnp.zeros_like, tokenizer.params))
    with pytest.raises(UserError, match="with other settings"):
        write(other, image_folder, out, settings=settings)
    write(tokenizer, image_folder, out, settings=settings)
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.array_record")}
    assert before.items() <= after.items()
    assert len(after) == 24


def test_ten_and_random_crops_exclude_each_other(capsys):
    crops = ["--crops", "ten", "--random-crops", "3"]
    with pytest.raises(SystemExit):
        main(["tokenize", "--checkpoint", "x", "--data", "photos", "--out", "y", *crops])
    assert "not allowed with" in capsys.readouterr().err


def test_both_splits_are_written_and_gone_on_with(tokenizer, image_folder, tmp_path):
    sources = {
        split: open_source(str(image_folder), split, validation_fraction=0.25) for split in ("train", "validation")
    }
    written = tokenize_splits(tokenizer, sources, tmp_path / "codes", settings=SETTINGS)
    assert {split: manifest["count"] for split, (manifest, _) in written.items()} == {"train": 18, "validation": 6}
    train, held_out = CodeCache(tmp_path / "codes"), CodeCache(tmp_path / "codes" / VALIDATION)
    assert (train.manifest.crops, held_out.manifest.crops) == (10, 1)
    source = sources["validation"]
    expected = tokenizer.encode(np.stack([center_crop(source.read(i), IMAGE_SIZE) for i in range(6)]))
    np.testing.assert_array_equal([held_out[i][1][0] for i in range(6)], expected)

    with pytest.raises(UserError, match="is complete"):
        tokenize_splits(tokenizer, sources, tmp_path / "codes", settings=SETTINGS)
    shutil.rmtree(tmp_path / "codes" / VALIDATION)
    other = Tokenizer(tokenizer.module, jax.tree.map(jnp.zeros_like, tokenizer.params))
    with pytest.raises(UserError, match="written by another tokenizer"):
        tokenize_splits(other, sources, tmp_path / "codes", settings=SETTINGS)
    assert tokenize_splits(tokenizer, sources, tmp_path / "codes", settings=SETTINGS).keys() == {"validation"}
