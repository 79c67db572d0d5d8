"""`fqgan edit`: what is kept is the photograph's, and wrong input is explained."""

import jax
import numpy as np
import pytest
from PIL import Image

from fqgan_jax.api import load_generator, load_tokenizer
from fqgan_jax.cli.edit import kept_positions
from fqgan_jax.cli.main import main
from fqgan_jax.data.images import read_image
from fqgan_jax.data.pixels import to_uint8
from fqgan_jax.data.transforms import center_crop
from fqgan_jax.errors import UserError


@pytest.fixture
def photograph(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(pixels).resize((40, 30)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def edit(trained_generator, trained_tokenizer, photograph, tmp_path):
    """Runs the command with more flags."""

    def run(*flags) -> int:
        models = ["--checkpoint", trained_generator, "--tokenizer", trained_tokenizer]
        return main(["edit", *map(str, [*models, "--image", photograph, "--out", tmp_path / "out", *flags])])

    return run


def test_edited_pictures_hold_the_photographs_codes(
    edit, photograph, trained_generator, trained_tokenizer, tmp_path, capsys
):
    assert edit("--keep", "left", "--label", "1,0", "--count", 2, "--temperature", 0.9, "--seed", 4) == 0
    assert "50% of the positions kept" in capsys.readouterr().out
    tokenizer, generator = load_tokenizer(trained_tokenizer), load_generator(trained_generator)
    size = tokenizer.image_size
    codes = np.asarray(tokenizer.encode(center_crop(read_image(photograph), size)[None])[0])
    keep = np.zeros(codes.shape[:2], bool)
    keep[:, : keep.shape[1] // 2] = True
    drawn = generator.sample(
        [1, 1, 0, 0], key=jax.random.key(4), temperature=0.9, known=np.where(keep[..., None], codes, -1), keep=keep
    )
    np.testing.assert_array_equal(np.asarray(drawn)[:, keep], np.broadcast_to(codes[keep], (4, *codes[keep].shape)))
    expected = np.asarray(to_uint8(np.asarray(tokenizer.decode(drawn))))
    for name, picture in zip(("001_000", "001_001", "000_000", "000_001"), expected, strict=True):
        written = np.asarray(Image.open(tmp_path / "out" / f"{name}.png"))
        np.testing.assert_allclose(written.astype(int), picture, atol=1)
    assert (tmp_path / "out" / "edited.png").exists()


def test_a_mask_is_cropped_like_its_photograph(tmp_path):
    mask = np.zeros((16, 32), np.uint8)
    mask[:8, 8:24] = 255  # the upper half of the central square
    mask[8:, :8] = 255  # outside of it
    Image.fromarray(mask).save(tmp_path / "mask.png")
    keep = kept_positions(str(tmp_path / "mask.png"), size=16, downsampling=4)
    np.testing.assert_array_equal(keep, np.arange(4)[:, None] < np.full((1, 4), 2))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--keep", "middle", "--label", 0], "middle cannot be read as an image"),
        (["--keep", "left", "--label", 7], "Labels must lie between"),
        (["--keep", "left", "--label", 0, "--guidance-schedule", "late"], "there is no guidance schedule"),
    ],
)
def test_wrong_input_is_explained(edit, capsys, flags, message):
    assert edit(*flags) == 2
    assert message in capsys.readouterr().err


def test_known_codes_that_do_not_fit_are_refused(trained_generator):
    generator, key = load_generator(trained_generator), jax.random.key(0)
    h, w = generator.module.grid
    codes, keep = np.zeros((h, w, generator.module.num_codebooks), int), np.ones((h, w), bool)
    for known, kept, message in (
        (codes, None, "together with keep"),
        (codes[:-1], keep, "known must be"),
        (codes, keep[:, :-1], "keep must be"),
        (codes, keep.astype(int), "must hold booleans"),
        (codes + 10**6, keep, "Codes must lie between"),
    ):
        with pytest.raises(UserError, match=message):
            generator.sample([0], key=key, known=known, keep=kept)
