"""Eight virtual CPU devices for every test, set before JAX is imported; models that many tests read, trained once."""

import fcntl
import os
import signal
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

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
from support.rows import LITE, networks, replace_package, replace_row
from support.tiny_configs import tiny_generator_config, tiny_tokenizer_config

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a shell, whose processes inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["support.object_storage"]


@pytest.fixture(scope="session", autouse=True)
def _without_lite():
    """Leaves EfficientNet-Lite0 out of evaluations: its program compiles far longer than those of tiny models."""
    with pytest.MonkeyPatch.context() as patch:
        replace_package(patch)
        # A package of its name without its file, for the processes that tests start.
        folder = Path(__file__).parent / "support" / "without_lite"
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def lite():
    """Puts EfficientNet-Lite0 back, for the tests of a module that are about it."""
    with pytest.MonkeyPatch.context() as patch:
        replace_row(patch, networks, LITE.name, LITE)
        yield


@pytest.fixture(scope="session")
def make_once(tmp_path_factory, worker_id):
    """Returns a function that has a folder filled once, also if several workers of pytest-xdist ask for it."""
    # Workers have folders of their own beside each other.
    root = tmp_path_factory.getbasetemp()
    root = root if worker_id == "master" else root.parent

    def make_once(name: str, fill: Callable[[Path], None]) -> Path:
        folder, done = root / f"shared_{name}", root / f"shared_{name}.done"
        with (root / f"shared_{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                fill(folder)
                done.touch()
        return folder

    return make_once


@pytest.fixture(scope="session")
def image_folder(make_once):
    """Two classes of twelve 20x24 images each: reddish and bluish noise."""

    def draw(root: Path) -> None:
        rng = np.random.default_rng(0)
        for name, channel in (("blue", 2), ("red", 0)):
            (root / name).mkdir(parents=True)
            for i in range(12):
                pixels = rng.integers(0, 128, (20, 24, 3), np.uint8)
                pixels[..., channel] += 100
                Image.fromarray(pixels).save(root / name / f"{i:02d}.png")

    return make_once("images", draw)


@pytest.fixture(scope="session")
def trained_tokenizer(make_once):
    """Work folder of a tiny tokenizer, trained for four steps."""
    from fqgan_jax.training import train

    return make_once("tokenizer", partial(train, tiny_tokenizer_config()))


@pytest.fixture(scope="session")
def code_cache(trained_tokenizer, image_folder, make_once):
    """Code cache of the image folder, with held-out codes."""
    from fqgan_jax.api import load_tokenizer
    from fqgan_jax.caches.tokenize import tokenize_splits
    from fqgan_jax.caches.write_shards import PassSettings
    from fqgan_jax.data.sources import open_source

    def write(folder: Path) -> None:
        settings = PassSettings(batch_size_per_device=20, images_per_shard=9)
        sources = {split: open_source(str(image_folder), split) for split in ("train", "validation")}
        tokenize_splits(load_tokenizer(trained_tokenizer), sources, folder, settings=settings)

    return make_once("codes", write)


@pytest.fixture(scope="session")
def trained_generator(code_cache, trained_tokenizer, make_once):
    """Work folder of a tiny generator, trained for four steps."""
    from fqgan_jax.training import train

    config = tiny_generator_config(f"data.codes={code_cache}", f"sample.tokenizer={trained_tokenizer}")
    return make_once("generator", partial(train, config))
