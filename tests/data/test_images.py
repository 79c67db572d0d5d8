"""Every kind of image file is read as a viewer shows it; damaged ones are refused."""

import numpy as np
import pytest
from PIL import Image

from fqgan_jax.data.images import UnreadableImageError, read_image

RGB = np.zeros((8, 12, 3), np.uint8)
RGB[:4, :6], RGB[:4, 6:], RGB[4:, :6], RGB[4:, 6:] = (200, 30, 30), (30, 200, 30), (30, 30, 200), (240, 240, 240)
GREY = np.arange(96, dtype=np.uint8).reshape(8, 12) * 2


def saved(tmp_path, image, ending="png", **options):
    path = tmp_path / f"image.{ending}"
    image.save(path, **options)
    return np.asarray(read_image(path)).astype(int)


def test_grey(tmp_path):
    np.testing.assert_array_equal(saved(tmp_path, Image.fromarray(GREY)), np.stack([GREY] * 3, -1))


def test_sixteen_bit(tmp_path):
    deep = Image.fromarray(GREY.astype(np.uint16) * 257)
    np.testing.assert_array_equal(saved(tmp_path, deep), np.stack([GREY] * 3, -1))


def test_dark_sixteen_bit(tmp_path):
    deep = Image.fromarray(np.full((4, 4), 200, np.uint16))
    np.testing.assert_array_equal(saved(tmp_path, deep), 1)


def test_transparency_is_laid_on_white(tmp_path):
    alpha = np.where(np.arange(12) < 6, 255, 0).astype(np.uint8)
    rgba = np.concatenate([RGB, np.broadcast_to(alpha[:, None], (8, 12, 1))], -1)
    expected = np.where(alpha[:, None] > 0, RGB, 255)
    np.testing.assert_array_equal(saved(tmp_path, Image.fromarray(rgba)), expected)


def test_palette(tmp_path):
    palette = Image.fromarray(RGB).quantize(8)
    np.testing.assert_array_equal(saved(tmp_path, palette), RGB)


def test_cmyk(tmp_path):
    assert np.abs(saved(tmp_path, Image.fromarray(RGB).convert("CMYK"), "tif") - RGB).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path, orientation):
    # What each orientation's stored pixels must have been for the upright image (EXIF 2.3, tag 0x0112).
    stored = {
        1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1],
        5: RGB.transpose(1, 0, 2), 6: np.rot90(RGB), 7: RGB[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(RGB, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = saved(tmp_path, Image.fromarray(np.ascontiguousarray(stored)), "png", exif=exif)
    np.testing.assert_array_equal(read, RGB)


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    read = saved(tmp_path, frames[0], "png", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read, RGB)


def test_reduced_decoding_keeps_the_asked_size(tmp_path):
    path = tmp_path / "large.jpg"
    Image.fromarray(np.kron(RGB, np.ones((100, 100, 1), np.uint8))).save(path)
    small = read_image(path, shortest_side=150)
    assert min(small.size) == 200
    full = read_image(path).resize(small.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(small).astype(int) - np.asarray(full)).mean() < 2


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_damaged_files_are_refused(tmp_path, content):
    path = tmp_path / "bad.jpg"
    if content is None:
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
        content = path.read_bytes()[:900]
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError):
        read_image(path)
