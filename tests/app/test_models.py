"""What the page does with models, on tiny ones."""

import numpy as np
import pytest
from PIL import Image
from support.tiny_models import tiny_generator, tiny_tokenizer

from fqgan_jax.app import models
from fqgan_jax.data.pixels import to_uint8
from fqgan_jax.errors import UserError


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    path = tmp_path_factory.mktemp("photograph") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 34, 3), np.uint8)).save(path)
    return path


def test_all_sub_codebooks_give_the_tokenizers_reconstruction(photograph):
    tokenizer = tiny_tokenizer(3, "split")
    encoded = models.open_image(tokenizer, photograph, max_side=17)
    assert encoded.image.shape == (10, 17, 3)
    assert encoded.codes.shape == (5, 9, 3)
    picture, numbers = models.reconstruct(tokenizer, encoded, [0, 1, 2])
    expected = to_uint8(np.asarray(tokenizer.decode(encoded.codes[None])))[0, :, :17]
    np.testing.assert_allclose(picture.astype(int), expected.astype(int), atol=1)
    assert "17 x 10 pixels" in numbers
    assert "3 x 9 x 5 codes" in numbers
    one = models.reconstruct(tokenizer, encoded, [1])[0]
    # Without any, every position has the same entries.
    none = models.reconstruct(tokenizer, encoded, [])[0]
    assert len({picture.tobytes(), one.tobytes(), none.tobytes()}) == 3


def test_maps_show_equal_codes_in_equal_colours(photograph):
    tokenizer = tiny_tokenizer(3, "split")
    encoded = models.open_image(tokenizer, photograph, max_side=17)
    colours = np.arange(3 * 12 * 3, dtype=np.uint8).reshape(3, 12, 3)
    maps = models.code_maps(tokenizer, encoded, colours)
    assert [caption.split(":")[0] for _, caption in maps] == ["0", "1", "2"]
    for k, (shown, caption) in enumerate(maps):
        assert shown.shape == encoded.image.shape
        assert (shown[9, 16] == colours[k, encoded.codes[4, 8, k]]).all()
        assert len(np.unique(shown[::2, ::2, 0])) == int(caption.split()[1])


def test_mixing_takes_whole_sub_codebooks(photograph, tmp_path):
    Image.new("RGB", (40, 40), (200, 30, 30)).save(tmp_path / "red.png")
    tokenizer = tiny_tokenizer(3, "split")
    first, second = (models.open_square(tokenizer, path, max_side=9) for path in (photograph, tmp_path / "red.png"))
    assert first.image.shape == second.image.shape == (8, 8, 3)
    for taken, codes in (([], first.codes), ([0, 1, 2], second.codes)):
        expected = to_uint8(np.asarray(tokenizer.decode(codes[None])))[0]
        assert (models.mix(tokenizer, first, second, taken) == expected).all()
    half = np.stack([first.codes[..., 0], second.codes[..., 1], first.codes[..., 2]], axis=-1)
    expected = to_uint8(np.asarray(tokenizer.decode(half[None])))[0]
    assert (models.mix(tokenizer, first, second, [1]) == expected).all()


def test_samples_depend_on_the_seed_alone():
    generator, tokenizer = tiny_generator(2), tiny_tokenizer(2, "split")
    drawn = models.draw(generator, tokenizer, models.Sampling(label=1, count=3, seed=5))
    assert [picture.shape for picture in drawn] == [(8, 8, 3)] * 3
    again = models.draw(generator, tokenizer, models.Sampling(label=1, count=2, seed=5))
    assert all((one == other).all() for one, other in zip(drawn, again, strict=False))
    other = models.draw(generator, tokenizer, models.Sampling(label=1, count=1, seed=6))
    assert (drawn[0] != other[0]).any()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"count": 17}, "1 to 16"),
        ({"seed": None}, "whole number"),
        ({"label": 9}, "between 0"),
        ({"top_p": 3}, "top_p"),
    ],
)
def test_settings_out_of_range_are_one_sentence(changed, message):
    with pytest.raises(UserError, match=message):
        models.draw(tiny_generator(2), tiny_tokenizer(2, "split"), models.Sampling(**({"label": 0} | changed)))


@pytest.mark.parametrize("opener", [models.open_image, models.open_square])
def test_files_that_are_no_images_and_too_large_ones_are_refused(opener, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match=r"text.png cannot be used \(not an image\): give a JPEG"):
        opener(tiny_tokenizer(3, "split"), tmp_path / "text.png", max_side=16)
    # A megabyte of zeros, compressed to little; nothing of it is decoded.
    Image.new("1", (10_000, 6_000)).save(tmp_path / "large.png")
    with pytest.raises(UserError, match="10000 x 6000 pixels are more than 50,000,000"):
        opener(tiny_tokenizer(3, "split"), tmp_path / "large.png", max_side=16)
