"""Folders and bundled photographs."""

import shutil

import numpy as np
import pytest
from PIL import Image

from fqgan_jax.data import sources
from fqgan_jax.data.skipping import Skipped, passed_over, read_or_next
from fqgan_jax.errors import UserError


def test_folder_splits_cover_every_image_once(image_folder):
    splits = [
        sources.ImageFolder(str(image_folder), split, validation_fraction=0.25) for split in ("train", "validation")
    ]
    names = [source.name(i) for source in splits for i in range(len(source))]
    assert sorted(names) == sorted(map(str, image_folder.rglob("*.png")))
    assert len(splits[1]) == 6
    assert splits[0].class_names == ("blue", "red")
    for source in splits:
        assert {source.label(i) for i in range(len(source))} == {0, 1}
        for i in range(len(source)):
            assert f"/{source.class_names[source.label(i)]}/" in source.name(i)


def test_train_and_val_folders_are_the_splits(image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / "train")
    (tmp_path / "val" / "red").mkdir(parents=True)
    (tmp_path / "val" / "blue").mkdir()
    shutil.copy(image_folder / "red" / "00.png", tmp_path / "val" / "red")
    source = sources.ImageFolder(str(tmp_path), "train")
    assert len(source) == 24
    source = sources.ImageFolder(str(tmp_path), "validation")
    assert [source.name(i) for i in range(len(source))] == [str(tmp_path / "val" / "red" / "00.png")]
    assert source.class_names[source.label(0)] == "red"


def test_folder_without_subfolders_is_one_class(image_folder):
    source = sources.ImageFolder(str(image_folder / "red"), "train")
    assert source.class_names == ("red",)


def test_missing_and_empty_folders_are_explained(tmp_path):
    with pytest.raises(UserError, match="There is no folder"):
        sources.open_source(str(tmp_path / "nowhere"), "train")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match="holds no images"):
        sources.open_source(str(tmp_path), "train")


def test_damaged_images_are_replaced_and_reported(image_folder, tmp_path):
    folder = tmp_path / "some"
    shutil.copytree(image_folder / "red", folder)
    (folder / "03.png").write_bytes(b"broken")
    source, skipped = sources.ImageFolder(str(folder), "train", validation_fraction=0), Skipped()
    index, image = read_or_next(source, 3)
    assert index == 4
    for name, reason in passed_over(source, 3, index).items():
        skipped.add(name, reason)
    np.testing.assert_array_equal(image, Image.open(folder / "04.png"))
    assert list(skipped.reasons) == [str(folder / "03.png")]
    assert "Skipped 1 unreadable" in skipped.report()


def test_only_damaged_images_are_an_error(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(b"")
    source = sources.ImageFolder(str(tmp_path), "train", validation_fraction=0)
    with pytest.raises(UserError, match="None of the 3 images"):
        read_or_next(source, 1)


def test_validation_crops_of_photos_share_no_pixel_with_training_crops():
    train, validation = (sources.open_source("photos", split) for split in ("train", "validation"))
    assert train.class_names == validation.class_names
    for label in range(len(train.class_names)):
        boxes = [[box for each, box in source._crops if each == label] for source in (train, validation)]
        assert boxes[0]
        assert boxes[1]
        for left, top, right, bottom in boxes[0]:
            assert all(right <= a or c <= left or bottom <= b or d <= top for a, b, c, d in boxes[1])
    assert train.read(0).size[0] == train.read(0).size[1]
