"""Each quantizer from training to a generator: trains, resumes, tokenizes, feeds FAR, saves, exports, loads."""

import jax
import numpy as np
import pytest
from support.tiny_configs import tiny_generator_config, tiny_tokenizer_config

import fqgan_jax
from fqgan_jax.caches.tokenize import tokenize
from fqgan_jax.caches.write_shards import PassSettings
from fqgan_jax.data.sources import open_source
from fqgan_jax.errors import UserError
from fqgan_jax.export.exporting import export_checkpoint
from fqgan_jax.training import train
from fqgan_jax.training.logging import read_log

pytestmark = pytest.mark.slow

SPLIT = ("model.factorization=split", "teachers=(None,None)", "model.temperature=0.5")
FIELDS = {
    "simvq": ("model.gradient=rotation", "model.code_dim=4", "model.z_channels=8", "perturbation.tokens=0.5"),
    "ibq": ("model.code_dim=4", "model.z_channels=8", "kmeans_batches=1", "reseed_after=2"),
    "lfq": ("model.code_dim=5", "model.z_channels=10"),
    "bsq": ("model.code_dim=5", "model.z_channels=10", "model.gradient=rotation"),
    "fsq": ("model.code_dim=3", "model.z_channels=6", "model.levels=(4,4,2)"),
}


@pytest.mark.parametrize(
    "name", ["ibq", "lfq", "fsq", *(pytest.param(name, marks=pytest.mark.long) for name in ("simvq", "bsq"))]
)
def test_whole_path(name, image_folder, tmp_path):
    nearest = ("perturbation.nearest=3", "perturbation.images=1.0", "model.nested=(0.0,0.5)")
    config = tiny_tokenizer_config(*SPLIT, *FIELDS[name], *nearest, f"model.quantizer={name}")
    whole = train(config, tmp_path / "whole")
    train(config, tmp_path / "run", stop_after=2)
    resumed = train(config, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(resumed), jax.device_get(whole))
    logged = {key for line in read_log(tmp_path / "run") for key in line}
    assert {"usage/0", "perplexity/1", "disentanglement", "validation/mutual_information/0-1"} <= logged
    assert ("commitment/0" in logged) == (name != "fsq")
    assert ("soft_entries/0" in logged) == (name == "ibq")

    tokenizer = fqgan_jax.load_tokenizer(tmp_path / "run")
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    codes = tokenizer.encode(images)
    exported = ("native", "safetensors") if name in ("simvq", "ibq") else ("native",)
    for format_name in exported:
        export_checkpoint(tmp_path / "run", format_name, tmp_path / format_name)
        file = tmp_path / format_name / ("model.safetensors" if format_name == "safetensors" else "")
        loaded = fqgan_jax.load_tokenizer(file)
        np.testing.assert_array_equal(loaded.encode(images), codes)
        np.testing.assert_allclose(loaded.decode(codes), tokenizer.decode(codes), atol=1e-5)
        np.testing.assert_array_equal(loaded.encode(images, codebooks=1), codes[..., :1])
    if name not in ("simvq", "ibq"):
        with pytest.raises(UserError, match=rf"The quantizer '{name}' has no published tensor names"):
            export_checkpoint(tmp_path / "run", "safetensors", tmp_path / "none")

    source = open_source(str(image_folder), "train")
    tokenize(tokenizer.first(1), source, tmp_path / "codes", crops="center", settings=PassSettings())
    generator_config = tiny_generator_config(
        f"data.codes={tmp_path / 'codes'}", f"sample.tokenizer={tmp_path / 'run'}", "train.steps=1"
    )
    train(generator_config, tmp_path / "generator")
    generator = fqgan_jax.load_generator(tmp_path / "generator")
    drawn = generator.sample([0, 1], key=jax.random.key(0))
    assert drawn.shape == (2, 8, 8, 1)
    assert generator.check_tokenizer(tokenizer).module.num_codebooks == 1
    assert tokenizer.decode(drawn).shape == (2, 16, 16, 3)
