"""The images an evaluation counts, from all the places they come from."""

import numpy as np
import pytest
from PIL import Image

from fqgan_jax.data.transforms import center_crop
from fqgan_jax.errors import UserError
from fqgan_jax.evaluation.image_set import open_images


def pixels_of(images, batch_size=3):
    batches = list(images.batches(batch_size))
    return np.concatenate([batch["image"][batch["mask"] > 0] for batch in batches])


def test_an_array_is_taken_as_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 12, 12, 3), np.uint8)
    np.savez_compressed(tmp_path / "batch.npz", pixels)
    images = open_images(str(tmp_path / "batch.npz"), size=99)
    np.testing.assert_array_equal(pixels_of(images), pixels)
    assert images.protocol(7) | {"name": ""} == {
        "name": "", "split": "all", "count": 7, "skipped": [], "crop": "none", "size": 12,
    }  # fmt: skip
    assert len(pixels_of(open_images(str(tmp_path / "batch.npz"), limit=4))) == 4


def test_a_folder_is_taken_whole_and_in_order(image_folder):
    images = open_images(str(image_folder), size=16)
    files = sorted(image_folder.rglob("*.png"))
    np.testing.assert_array_equal(pixels_of(images), [center_crop(Image.open(file), 16) for file in files])


def test_a_folder_with_splits_gives_its_validation_images(image_folder, tmp_path):
    for split, name in (("train", "red"), ("val", "blue")):
        (tmp_path / split / name).mkdir(parents=True)
        for path in (image_folder / name).iterdir():
            if split == "train" or path.name < "05":
                (tmp_path / split / name / path.name).write_bytes(path.read_bytes())
    assert len(open_images(str(tmp_path), size=16)) == 5
    assert len(open_images(str(tmp_path), split="train", size=16)) == 12
    with pytest.raises(UserError, match="choose one with --split"):
        open_images(str(tmp_path), split="all", size=16)
    assert open_images("photos", size=16).split == "validation"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3)}, "no arr_0"),
        ({"arr_0": np.zeros((2, 8, 8, 3))}, "float64: images are arr_0"),
        ({"arr_0": np.zeros((0, 8, 8, 3), np.uint8)}, "at least one"),
    ],
)
def test_arrays_that_are_no_images(arrays, message, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError, match=message):
        open_images(str(tmp_path / "x.npz"))


def test_arrays_of_rectangles_are_measured_whole(tmp_path):
    arrays = np.arange(2 * 8 * 9 * 3, dtype=np.uint8).reshape(2, 8, 9, 3)
    np.savez(tmp_path / "x.npz", arr_0=arrays)
    (batch,) = open_images(str(tmp_path / "x.npz")).batches(2)
    np.testing.assert_array_equal(batch["image"], arrays)


def test_nothing_there_and_no_size(image_folder, tmp_path):
    with pytest.raises(UserError, match="not square \\(24x20\\): choose a crop with --size"):
        open_images(str(image_folder))
    with pytest.raises(UserError, match="There is no folder"):
        open_images(str(tmp_path / "none"))
    with pytest.raises(UserError, match="There is no file"):
        open_images(str(tmp_path / "none.npz"))
    (tmp_path / "x.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="damaged or not"):
        open_images(str(tmp_path / "x.npz"))
