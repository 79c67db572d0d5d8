"""Crops: sizes, places, randomness."""

import numpy as np
import pytest
from PIL import Image

from fqgan_jax.data import transforms


def ramp(width, height):
    """Red grows with the column, green with the row."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width)
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    return Image.fromarray(image)


@pytest.mark.parametrize("size", [(100, 60), (60, 100), (500, 33), (7, 5), (1, 1), (32, 32), (20_000, 10), (3, 9000)])
def test_crops_have_the_asked_size(size):
    rng = np.random.default_rng(0)
    assert transforms.random_crop(ramp(*size), 32, rng).shape == (32, 32, 3)
    assert transforms.center_crop(ramp(*size), 32).shape == (32, 32, 3)
    assert transforms.ten_crops(ramp(*size), 32).shape == (10, 32, 32, 3)


def test_shorter_side():
    assert transforms.resize_to_cover(ramp(400, 200), 50).size == (100, 50)


def test_center_crop_is_the_centre():
    crop = transforms.center_crop(ramp(64, 32), 32).astype(int)
    np.testing.assert_array_equal(crop, np.asarray(ramp(64, 32))[:, 16:48])


def test_ten_crops_are_corners_centre_and_mirror_images():
    square = np.asarray(ramp(35, 35))
    crops = transforms.ten_crops(ramp(35, 35), 32)
    places = [(0, 0), (0, 3), (3, 0), (3, 3), (1, 1)]
    for crop, mirrored, (top, left) in zip(crops[:5], crops[5:], places, strict=True):
        np.testing.assert_array_equal(crop, square[top : top + 32, left : left + 32])
        np.testing.assert_array_equal(mirrored, crop[:, ::-1])


def test_random_crops_cover_zooms_places_and_mirror_images():
    rng = np.random.default_rng(0)
    crops = np.stack([transforms.random_crop(ramp(80, 80), 64, rng) for _ in range(300)]).astype(int)
    spans = np.abs(crops[:, 32, -1, 0] - crops[:, 32, 0, 0])
    # A crop of 64 from 64 to 80 pixels shows 0.8 to all of the ramp.
    assert spans.min() < 0.83 * 255
    assert spans.max() > 0.97 * 255
    mirrored = np.mean(crops[:, 32, -1, 0] < crops[:, 32, 0, 0])
    assert 0.4 < mirrored < 0.6


def test_only_the_square_is_resized_and_as_if_all_were():
    """Against the plain way: resize the whole image, then cut."""
    noise = np.random.default_rng(0).integers(60, 190, (48, 90, 3), np.uint8)
    image = Image.fromarray(noise)
    for seed in range(20):
        crop = transforms.random_crop(image, 32, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        whole = np.asarray(transforms.resize_to_cover(image, transforms.random_side(32, rng)))
        left, top = rng.integers(whole.shape[1] - 32 + 1), rng.integers(whole.shape[0] - 32 + 1)
        expected = whole[top : top + 32, left : left + 32]
        expected = expected[:, ::-1] if rng.random() < 0.5 else expected
        assert np.abs(crop.astype(int) - expected).max() <= 2


def test_the_centre_of_a_very_long_image():
    long = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (16, 1)).repeat(16, 1)).convert("RGB")
    crop = transforms.center_crop(long, 16)
    np.testing.assert_array_equal(crop, np.asarray(long)[:, 2040:2056])


@pytest.mark.parametrize("size", [(100, 60), (60, 100), (500, 33), (7, 5), (1, 1), (20_000, 10), (3, 9000)])
@pytest.mark.parametrize("crop", [(32, 32), (24, 48), (48, 20)])
def test_rectangles_have_the_asked_size(size, crop):
    rng = np.random.default_rng(0)
    assert transforms.random_crop(ramp(*size), crop, rng).shape == (*crop, 3)
    assert transforms.center_crop(ramp(*size), crop).shape == (*crop, 3)
    assert transforms.ten_crops(ramp(*size), crop).shape == (10, *crop, 3)


def test_a_square_is_a_rectangle_of_equal_sides():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 210, 3), np.uint8))
    for function in (transforms.center_crop, transforms.ten_crops):
        np.testing.assert_array_equal(function(image, 32), function(image, (32, 32)))
    square, rectangle = (transforms.random_crop(image, size, np.random.default_rng(5)) for size in (32, (32, 32)))
    np.testing.assert_array_equal(square, rectangle)


def test_a_rectangle_is_cut_from_an_image_that_just_covers_it():
    assert transforms.resize_to_cover(ramp(300, 300), (50, 100)).size == (100, 100)
    assert transforms.resize_to_cover(ramp(600, 150), (50, 100)).size == (200, 50)
    crop = transforms.center_crop(ramp(100, 80), (40, 100)).astype(int)
    np.testing.assert_array_equal(crop, np.asarray(ramp(100, 80))[20:60])
    # Zoomed by the same factor on both sides, so that no random crop is stretched.
    rng = np.random.default_rng(0)
    for _ in range(20):
        side = transforms.random_side((40, 100), rng)
        assert 40 <= side <= 50
        assert transforms.zoomed((40, 100), side) == (side, round(100 * side / 40))
