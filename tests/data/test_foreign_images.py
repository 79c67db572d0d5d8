"""Files that claim to be images: only named formats are decoded, and whatever is damaged is unreadable, no more."""

import io
import os

import numpy as np
import pytest
from PIL import Image, ImageOps

from fqgan_jax.data.images import FORMATS, UnreadableImageError, read_image
from fqgan_jax.data.sources import open_source
from fqgan_jax.errors import UserError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(never) print\n%%EOF\n"


def encoded(format_name: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format_name)
    return buffer.getvalue()


def test_postscript_in_a_jpg_starts_no_program(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(UnreadableImageError, match="not an image"):
        read_image(EPS)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").write_bytes(EPS)
    source = open_source(str(tmp_path), "train", validation_fraction=0)
    with pytest.raises(UnreadableImageError):
        source.read(0)


@pytest.mark.parametrize("name", ["AVIF", "DDS", "ICNS", "PCX", "TGA", "SGI"])
def test_other_formats_of_pillow_are_no_images(name):
    if name not in Image.registered_extensions().values() or name not in Image.SAVE:
        pytest.fail(f"this Pillow does not write {name}")
    with pytest.raises(UnreadableImageError, match="not an image"):
        read_image(encoded(name))


@pytest.mark.parametrize("name", FORMATS)
def test_every_named_format_is_read(name):
    content = encoded(name)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(np.asarray(read_image(content)), expected)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", FORMATS)
def test_mutated_files_are_images_or_unreadable(name):
    """Bytes replaced, removed and repeated at random; more often near the start, where the headers are."""
    content, rng = encoded(name), np.random.default_rng(1)
    for _ in range(300):
        mutated = bytearray(content)
        for _ in range(rng.integers(1, 6)):
            position = min(int(rng.exponential(len(content) / 8)), len(mutated) - 1)
            mutated[position] = rng.integers(256)
        if rng.random() < 0.3:
            del mutated[int(rng.integers(len(mutated))) :]
        try:
            image = read_image(bytes(mutated))
        except UnreadableImageError:
            continue
        assert image.mode == "RGB"


def test_pipes_and_missing_files_among_the_images_are_skipped(tmp_path):
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "0.png")
    (tmp_path / "a" / "1.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "a" / "2.png").write_bytes(encoded("PNG"))
    source = open_source(str(tmp_path), "train", validation_fraction=0)
    for index, message in ((0, "no regular file"), (1, "No such file")):
        with pytest.raises(UnreadableImageError, match=message):
            source.read(index)
    assert source.read(2).size == (20, 24)


def test_a_source_without_a_name_is_not_the_current_folder():
    with pytest.raises(UserError, match="has no name"):
        open_source(" ", "train")
