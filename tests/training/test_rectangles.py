"""Images that are no squares, from training to files: every part takes (height, width)."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from support.tiny_configs import tiny_generator_config, tiny_tokenizer_config

import fqgan_jax
from fqgan_jax.caches.codes import CodeCache
from fqgan_jax.cli.main import main
from fqgan_jax.errors import UserError
from fqgan_jax.export.exporting import export_checkpoint
from fqgan_jax.training import train
from fqgan_jax.training.from_config import tokenizer_fields

SIZE = (16, 24)


def test_sizes_are_checked():
    assert tokenizer_fields(tiny_tokenizer_config("data.image_size=(16,24)"))["grid"] == (8, 12)
    with pytest.raises(UserError, match="not divisible"):
        tokenizer_fields(tiny_tokenizer_config("data.image_size=(16,25)"))
    for size in ("(16,)", "16.5", "(0,16)", "abc", "-16"):
        with pytest.raises(UserError, match=r"data\.image_size is .*: give a whole number .* or a tuple, 2 of them"):
            tiny_tokenizer_config(f"data.image_size={size}")


@pytest.mark.slow
def test_rectangles_from_training_to_files(image_folder, tmp_path):
    def run(command, *flags):
        assert main([command, *map(str, flags)]) == 0

    features = tmp_path / "features"
    run("features", "--teacher", "hog", "--data", image_folder, "--out", features, "--image-size", "16x24")
    fields = (f"data.source={image_folder}", "data.image_size=(16,24)", "train.keep_best=psnr")
    direct = train(tiny_tokenizer_config(*fields), tmp_path / "tokenizer")
    train(tiny_tokenizer_config(*fields, f"data.features={features}"), tmp_path / "from_features")
    train(tiny_tokenizer_config(*fields), tmp_path / "parts", stop_after=2)
    resumed = train(tiny_tokenizer_config(*fields), tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, resumed.params, direct.params)
    tokenizer = fqgan_jax.load_tokenizer(tmp_path / "tokenizer")
    assert tokenizer.image_size == SIZE
    assert tokenizer.module.grid == (8, 12)

    models = ("--checkpoint", tmp_path / "tokenizer", "--data", image_folder)
    run("tokenize", *models, "--out", tmp_path / "codes")
    run("tokenize", *models, "--random-crops", 2, "--out", tmp_path / "random_codes")
    assert CodeCache(tmp_path / "random_codes").manifest.shape == (2, 8, 12, 2)
    run("evaluate", *models, "--out", tmp_path / "numbers.json", "--report", tmp_path / "report")
    assert json.loads((tmp_path / "numbers.json").read_text())["protocol"]["data"]["size"] == list(SIZE)

    fields = (f"data.codes={tmp_path / 'codes'}", f"sample.tokenizer={tmp_path / 'tokenizer'}")
    train(tiny_generator_config(*fields), tmp_path / "generator")
    models = ("--checkpoint", tmp_path / "generator", "--tokenizer", tmp_path / "tokenizer")
    run("sample", *models, "--count", 4, "--out", tmp_path / "samples.npz")
    with np.load(tmp_path / "samples.npz") as samples:
        assert samples["arr_0"].shape == (4, *SIZE, 3)
    run("evaluate", "--data", tmp_path / "samples.npz", "--out", tmp_path / "of_samples.json")
    photograph = next((image_folder / "red").iterdir())
    run("edit", *models, "--image", photograph, "--keep", "top", "--label", 1, "--out", tmp_path / "edited")
    assert Image.open(tmp_path / "edited" / "001_000.png").size == (24, 16)
    run("export", "--checkpoint", tmp_path / "generator", "--format", "stablehlo", "--out", tmp_path / "programs")

    export_checkpoint(tmp_path / "tokenizer", "safetensors", tmp_path / "export")
    again = fqgan_jax.load_tokenizer(tmp_path / "export" / "model.safetensors")
    images = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), np.uint8)
    np.testing.assert_array_equal(again.encode(images), tokenizer.encode(images))
