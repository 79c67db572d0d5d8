"""Eight virtual CPU devices for every test, set before JAX is imported; tiny configs that compile fast."""

import os
import tempfile

# Tiny programs: compiling them takes longer than running them.
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=1"
# For tests that start many processes, which on a busy machine wait long for each other.
PROCESS_FLAGS = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=1"
PROCESS_FLAGS += " --xla_cpu_collective_timeout_seconds=600 --xla_cpu_collective_call_terminate_timeout_seconds=600"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs that several tests build (a run and its resumption, say) are compiled once; set it to keep them between runs.
CACHE = tempfile.TemporaryDirectory(prefix="fqgan_jax_tests_")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", CACHE.name)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"

import numpy as np
import pytest
from PIL import Image

from fqgan_jax.config import load_config

# The demo's tokenizer, far smaller: 16x16 images, f = 2.
TINY_TOKENIZER = (
    *("model.codebook_size=32", "model.base_width=8", "model.multipliers=(1,2)", "model.z_channels=16"),
    *("model.adapter_heads=2", "data.image_size=16", "data.batch_size=8", "train.steps=4", "train.log_every=2"),
    *("train.checkpoint_every=2", "train.evaluate_every=4", "optimizer.warmup_steps=0"),
)


def tiny_tokenizer_config(*overrides: str, k: int = 2):
    """The demo's config with the fields of `TINY_TOKENIZER` and more."""
    fields = [f"--config.{field}" for field in (*TINY_TOKENIZER, *overrides)]
    return load_config(f"configs/demo_tokenizer.py:k={k}", fields)


def tiny_generator_config(*overrides: str):
    """The demo's config, far smaller."""
    tiny = ["model.width=32", "model.depth=2", "model.num_heads=2", "data.batch_size=8", "train.steps=4"]
    tiny += ["train.log_every=2", "train.checkpoint_every=2", "train.evaluate_every=4", "optimizer.warmup_steps=0"]
    return load_config("configs/demo_generator.py", [f"--config.{field}" for field in (*tiny, *overrides)])


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
    from fqgan_jax.data.cache import Pace
    from fqgan_jax.data.sources import open_source
    from fqgan_jax.tokenizing import tokenize

    folder = tmp_path_factory.mktemp("codes") / "cache"
    pace = Pace(batch_size=20, images_per_shard=9)
    tokenize(load_tokenizer(trained_tokenizer), open_source(str(image_folder), "train"), folder, pace=pace)
    return folder


@pytest.fixture(scope="session")
def trained_generator(code_cache, trained_tokenizer, tmp_path_factory):
    """Work folder of a tiny generator, trained for four steps."""
    from fqgan_jax.training.loop import train

    workdir = tmp_path_factory.mktemp("generator")
    train(tiny_generator_config(f"data.codes={code_cache}", f"sample.tokenizer={trained_tokenizer}"), workdir)
    return workdir
