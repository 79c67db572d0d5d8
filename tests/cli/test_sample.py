"""Samples as files: the same whatever the batch and the format, and what the model draws."""

import jax
import numpy as np
import pytest
from PIL import Image

from fqgan_jax.api import load_generator, load_tokenizer
from fqgan_jax.cli.main import main
from fqgan_jax.data.pixels import to_uint8
from fqgan_jax.errors import UserError
from fqgan_jax.pictures.figures import image_rows
from fqgan_jax.pictures.sample_files import npz_file
from fqgan_jax.pictures.sample_grid import SampleGrid


@pytest.fixture
def sample(trained_generator, trained_tokenizer):
    """Runs the command with more flags."""

    def run(*flags) -> int:
        models = ["--checkpoint", trained_generator, "--tokenizer", trained_tokenizer]
        return main(["sample", *map(str, [*models, *flags])])

    return run


def test_sample_writes_images_and_a_grid(sample, tmp_path):
    settings = ["--per-class", 3, "--top-k", "5,0", "--guidance", 1.5]
    assert sample("--out", tmp_path / "a", "--batch-size", 4, *settings) == 0
    assert sample("--out", tmp_path / "b", "--batch-size", 6, *settings) == 0
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [f"{number}_{i:03d}.png" for number in ("000_blue", "001_red") for i in range(3)]
    for name in (*(f"a/{name}" for name in names), "a.png"):
        # The same seed and labels give the same samples whatever the batch size.
        assert (tmp_path / name).read_bytes() == (tmp_path / name.replace("a", "b", 1)).read_bytes()


def test_sampled_files_hold_the_decoded_codes(sample, trained_generator, trained_tokenizer, tmp_path):
    flags = ["--count", 11, "--seed", 3, "--batch-size", 4]
    assert sample("--out", tmp_path / "all.npz", *flags) == 0
    assert sample("--out", tmp_path / "all", *flags) == 0
    tokenizer, generator = load_tokenizer(trained_tokenizer), load_generator(trained_generator)
    codes = generator.sample(np.arange(11) % 2, key=jax.random.key(3), guidance=2.0)
    expected = np.asarray(to_uint8(np.asarray(tokenizer.decode(codes))))
    with np.load(tmp_path / "all.npz") as file:
        images, labels = file["arr_0"], file["arr_1"]
    np.testing.assert_array_equal(labels, np.arange(11) % 2)
    assert images.dtype == np.uint8
    # A pixel may round to its neighbour where the batch is laid out otherwise.
    np.testing.assert_allclose(images.astype(int), expected, atol=1)
    for i, image in enumerate(images):
        path = tmp_path / "all" / f"{('000_blue', '001_red')[i % 2]}_{i // 2:03d}.png"
        np.testing.assert_array_equal(np.asarray(Image.open(path)), image)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all", "all.npz", "all.png"]
    assert main(["evaluate", "--data", str(tmp_path / "all.npz"), "--out", str(tmp_path / "e.json")]) == 0


def test_bad_labels_write_nothing(sample, tmp_path, capsys):
    assert sample("--out", tmp_path / "out", "--labels", "0,2") == 2
    assert "Labels must lie between 0 and 1; these lie between 0 and 2." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_grid_shows_the_first_samples_of_the_first_classes(tmp_path):
    labels = np.array([7, 7, 2, 5, 7, 2, 7])
    images = np.arange(7, dtype=np.uint8)[:, None, None, None] * np.ones((512, 4, 3), np.uint8)
    grid = SampleGrid(labels, num_rows=2, num_columns=3)
    grid.add(images[:4], labels[:4])
    grid.add(images[4:], labels[4:])
    grid.save(tmp_path / "grid.png")
    expected = image_rows([images[[0, 1, 4]], images[[2, 5]]])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "grid.png")), expected)


def test_a_file_of_images_that_fails_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="1 images were written, not 2"), npz_file(tmp_path / "a.npz", 2) as write:
        write(np.zeros((1, 4, 4, 3), np.uint8), ["a"], np.zeros(1, np.int32))
    assert not list(tmp_path.iterdir())
    (tmp_path / "b").write_text("")
    with pytest.raises(UserError, match=r"cannot be written, because .*b is no folder"):
        npz_file(tmp_path / "b" / "a.npz", 2).__enter__()
