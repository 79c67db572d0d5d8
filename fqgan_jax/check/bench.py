"""The headline times of these devices, by the benchmarks of `fqgan bench`."""

from collections.abc import Callable, Iterator

import jax
from ml_collections import ConfigDict

from fqgan_jax.config import load_config
from fqgan_jax.performance.bench import bench_inference, bench_sampling, bench_training
from fqgan_jax.performance.inference import decoding, encoding, sampling
from fqgan_jax.performance.measure import Clock, Values

# Configs of a tokenizer and a generator, and images a device.
SIZES = {
    "demo": ("configs/demo_tokenizer.py", "configs/demo_generator.py", 16),
    "full": ("configs/tokenizer_imagenet.py:k=2,f=16", "configs/generator_imagenet.py:size=B", 16),
}
SHOWN = ("median (s)", "images/s a device", "images/s", "model FLOPs utilization")


def headline_times() -> Iterator[tuple[str, float | str]]:
    """Yields times and rates by name: of the demo's models and, except on CPUs, of full-size ones."""
    for size, (tokenizer, generator, images) in SIZES.items():
        if size == "full" and jax.devices()[0].platform == "cpu":
            continue  # a step takes minutes there
        for part, measure in _measures(load_config(tokenizer), load_config(generator), images).items():
            try:
                values = measure()
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                values = {SHOWN[0]: "does not fit into memory"}
            for name, value in values.items():
                if name.endswith(SHOWN) and not str(value).startswith("not known"):
                    yield f"{size} {part}, {name}", value


def _measures(tokenizer: ConfigDict, generator: ConfigDict, images: int) -> dict[str, Callable[[], Values]]:
    """What is measured, with so many images a device."""
    batch_size = images * jax.device_count()
    tokenizer.data.batch_size = generator.data.batch_size = batch_size
    clock = Clock(warm_up=1, repeats=3)
    return {
        "tokenizer's step": lambda: bench_training(tokenizer, None, clock),
        "generator's step": lambda: bench_training(generator, tokenizer, clock),
        "encode": lambda: bench_inference(encoding(tokenizer), batch_size, clock),
        "decode": lambda: bench_inference(decoding(tokenizer), batch_size, clock),
        "sample": lambda: bench_sampling(sampling(generator, tokenizer), clock),
    }
