"""Eight virtual CPU devices for every test, set before JAX is imported; models that many tests read, trained once."""

import os
import tempfile

from support.environment import FLAGS

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs that several tests build (a run and its resumption, say) are compiled once; set it to keep them between runs.
CACHE = tempfile.TemporaryDirectory(prefix="fqgan_jax_tests_")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", CACHE.name)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"

import numpy as np
import pytest
from PIL import Image
from support.tiny_configs import tiny_generator_config, tiny_tokenizer_config


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """Two classes of twelve 20x24 images each: reddish and bluish noise."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, channel in (("blue", 2), ("red", 0)):
        (root / name).mkdir()
        for i in range(12):
            pixels = rng.integers(0, 128, (20, 24, 3), np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(root / name / f"{i:02d}.png")
    return root


@pytest.fixture(scope="session")
def trained_tokenizer(tmp_path_factory):
    """Work folder of a tiny tokenizer, trained for four steps."""
    from fqgan_jax.training.loop import train

    workdir = tmp_path_factory.mktemp("tokenizer")
    train(tiny_tokenizer_config(), workdir)
    return workdir


@pytest.fixture(scope="session")
def code_cache(trained_tokenizer, image_folder, tmp_path_factory):
    """Code cache of the image folder."""
    from fqgan_jax.api import load_tokenizer
    from fqgan_jax.caches.records import PassSettings
    from fqgan_jax.caches.tokenize import tokenize
    from fqgan_jax.data.sources import open_source

    folder = tmp_path_factory.mktemp("codes") / "cache"
    settings = PassSettings(batch_size_per_device=20, images_per_shard=9)
    tokenize(load_tokenizer(trained_tokenizer), open_source(str(image_folder), "train"), folder, settings=settings)
    return folder


@pytest.fixture(scope="session")
def trained_generator(code_cache, trained_tokenizer, tmp_path_factory):
    """Work folder of a tiny generator, trained for four steps."""
    from fqgan_jax.training.loop import train

    workdir = tmp_path_factory.mktemp("generator")
    train(tiny_generator_config(f"data.codes={code_cache}", f"sample.tokenizer={trained_tokenizer}"), workdir)
    return workdir
