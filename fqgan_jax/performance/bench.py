"""Benchmarks: each builds what it measures from a config, on noise and random weights, and returns numbers by name."""

import dataclasses
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree
from ml_collections import ConfigDict

from fqgan_jax.data.pixels import to_float
from fqgan_jax.losses.quantization_losses import entropy_loss
from fqgan_jax.models.distances import l2_normalize, soft_assignment, squared_distances
from fqgan_jax.models.far import FAR
from fqgan_jax.models.fields import build_module
from fqgan_jax.models.sampling import sample_codes, sampling_options
from fqgan_jax.performance.chips import chip_of
from fqgan_jax.performance.flops import count_flops
from fqgan_jax.performance.measure import Clock, Values, Work, copy_bandwidth, measure, spread, timed
from fqgan_jax.performance.tasks import StepInputs, make_step, model_flops
from fqgan_jax.sharding.mesh import batch_sharding, batch_shards, make_mesh, replicated
from fqgan_jax.training.from_config import check_batch_size, tokenizer_fields
from fqgan_jax.training.generator_task import GeneratorTask

SAMPLE_BATCHES = (1, 8, 64)


def bench_training(config: ConfigDict, tokenizer_config: ConfigDict | None, clock: Clock) -> Values:
    """Measures the config's training step on all devices of this machine, with random frozen networks."""
    step = make_step(config, tokenizer_config=tokenizer_config)
    grid, size = step.task.module.grid, config.data.batch_size
    work = Work(
        lowered=step.lower(),
        inputs=step.random_inputs(jax.random.key(0)),
        call=_train_once,
        images=size,
        tokens=size * grid[0] * grid[1],
        flops=model_flops(config, tokenizer_config=tokenizer_config),
    )
    return measure(work, clock)


def _train_once(compiled: jax.stages.Compiled, inputs: StepInputs) -> tuple[PyTree, StepInputs]:
    """A step, which donates the state; the next one takes the new state."""
    state, metrics = compiled(inputs.state, inputs.frozen, inputs.batch)
    return (state, metrics), dataclasses.replace(inputs, state=state)


def bench_encode(config: ConfigDict, clock: Clock) -> Values:
    """Measures a tokenizer's `encode`, from uint8 images to codes, on all devices of this machine."""
    side, size = config.data.image_size, config.data.batch_size

    def random_images(key: jax.Array) -> Array:
        return jax.random.bits(key, (size, side, side, 3), jnp.uint8)

    def encode(module, params, images):
        return module.apply({"params": params}, to_float(images), method="encode")

    return _bench_tokenizer(config, encode, random_batch=random_images, clock=clock)


def bench_decode(config: ConfigDict, clock: Clock) -> Values:
    """Measures a tokenizer's `decode`, from codes to images, on all devices of this machine."""
    fields = tokenizer_fields(config)
    shape = (config.data.batch_size, *fields["grid"], fields["num_codebooks"])

    def random_codes(key: jax.Array) -> Array:
        return jax.random.randint(key, shape, 0, fields["codebook_size"])

    def decode(module, params, codes):
        return module.apply({"params": params}, codes, method="decode")

    return _bench_tokenizer(config, decode, random_batch=random_codes, clock=clock)


def _bench_tokenizer(config: ConfigDict, function: Callable, *, random_batch: Callable, clock: Clock) -> Values:
    """Measures `function(module, params, batch)`."""
    mesh, key = make_mesh({"data": -1, "fsdp": 1}), jax.random.key(0)
    size, side = config.data.batch_size, config.data.image_size
    check_batch_size(size, batch_shards(mesh))
    module = build_module("tokenizer", tokenizer_fields(config))

    def init(key):
        return module.init(key, jnp.zeros((1, side, side, 3)))["params"]

    def apply(params, batch):
        return function(module, params, batch)

    params = jax.jit(init, out_shardings=replicated(mesh))(key)
    batch = jax.jit(random_batch, out_shardings=batch_sharding(mesh))(key)
    work = Work(
        lowered=jax.jit(apply).lower(params, batch),
        inputs=batch,
        call=lambda compiled, batch: (compiled(params, batch), batch),
        images=size,
        tokens=size * module.grid[0] * module.grid[1],
        flops=count_flops(apply, params, batch),
    )
    return measure(work, clock)


def bench_sampling(config: ConfigDict, tokenizer_config: ConfigDict | None, clock: Clock) -> Values:
    """Measures guided sampling on one device, for batches of `SAMPLE_BATCHES`, against the traffic floor.

    Each batch is one program, compiled ahead of time: other labels and keys run in the same one.
    """
    module = GeneratorTask.without_data(config, 1, tokenizer_config=tokenizer_config).module
    blank = jnp.zeros((1, module.grid[0] * module.grid[1], module.num_codebooks), jnp.int32)
    params = jax.jit(lambda key: module.init(key, blank, jnp.zeros(1, jnp.int32))["params"])(jax.random.key(0))
    chip = chip_of(jax.devices()[0])
    bandwidth = chip.bandwidth if chip else copy_bandwidth()
    values: Values = {"bandwidth (GB/s)": bandwidth / 1e9, "bandwidth from": chip.name if chip else "a copy, measured"}
    for size in SAMPLE_BATCHES:
        floor = sampling_floor_bytes(module, params, size) / bandwidth
        numbers = _bench_samples(module, params, batch_size=size, clock=clock)
        numbers |= {"traffic floor (s)": floor, "median / floor": numbers["median (s)"] / floor}
        values |= {f"batch {size}: {name}": value for name, value in numbers.items()}
    return values


def _bench_samples(module: FAR, params: PyTree, *, batch_size: int, clock: Clock) -> Values:
    """Time and rates of drawing a batch."""
    options = sampling_options(module.num_codebooks)

    def sample(params, options, keys, labels):
        return sample_codes(module, params, keys=keys, labels=labels, options=options)

    keys = jax.random.split(jax.random.key(1), batch_size)
    labels = jnp.arange(batch_size) % module.num_classes
    start = time.perf_counter()
    compiled = jax.jit(sample).lower(params, options, keys, labels).compile()
    compilation = time.perf_counter() - start

    def call(inputs):
        # Other labels and keys each time; a program for other shapes, or a second one, would be refused.
        keys, labels = inputs
        return compiled(params, options, keys, labels), (keys[::-1], labels[::-1])

    times = spread(timed(call, (keys, labels), clock))
    median, positions = times["median (s)"], module.grid[0] * module.grid[1]
    return {
        "compilation (s)": compilation,
        **times,
        "images/s": batch_size / median,
        "tokens/s": batch_size * positions * module.num_codebooks / median,
        "ms a position": median / positions * 1e3,
    }


def sampling_floor_bytes(module: FAR, params: PyTree, batch_size: int) -> float:
    """Returns the bytes that guided sampling of a batch must read: weights at each position, keys and values so far.

    Weights in the compute dtype; the head's at each of a position's K codes, the output matrices once a position.
    """
    width = jnp.dtype(module.dtype).itemsize

    def count(name: str) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(params[name]))

    weights = count("backbone") + count("aggregate") + count("outputs") + module.num_codebooks * count("head")
    positions = module.grid[0] * module.grid[1]
    pasts = positions * (positions + 1) / 2  # keys and values of all earlier positions, summed over positions
    cached = 2 * module.depth * module.width * 2 * batch_size  # of conditional and unconditional rows
    return width * (positions * weights + pasts * cached)


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizerSizes:
    """Sizes of a quantizer's benchmark.

    Attributes:
      num_codebooks: K.
      codebook_size: N.
      code_dim: d.
      tokens: in all, a multiple of 256.
      chunk_tokens: whose distances exist at a time.
    """

    num_codebooks: int
    codebook_size: int
    code_dim: int
    tokens: int
    chunk_tokens: int


def bench_quantizer(sizes: QuantizerSizes, clock: Clock) -> Values:
    """Measures the entropy loss with its gradients, `chunk_tokens` at a time and with all distances at once.

    Returns:
      The numbers of both, their ratios, and the largest relative difference of any gradient.
    """
    K, N, d = sizes.num_codebooks, sizes.codebook_size, sizes.code_dim
    latents_key, codebooks_key = jax.random.split(jax.random.key(0))
    latents = l2_normalize(jax.random.normal(latents_key, (sizes.tokens // 256, 256, K, d)))
    codebooks = l2_normalize(jax.random.normal(codebooks_key, (K, N, d)))

    def direct(x, codebooks):
        log_p = jax.nn.log_softmax(-squared_distances(x, codebooks) / 0.01)
        p = jnp.exp(log_p)
        token_entropy = -jnp.mean(jnp.sum(p * log_p, -1), (0, 1))
        return jnp.sum(entropy_loss(token_entropy=token_entropy, mean_probability=jnp.mean(p, (0, 1))))

    def chunked(x, codebooks):
        _, entropy, probability = soft_assignment(x, codebooks, temperature=0.01, chunk_tokens=sizes.chunk_tokens)
        return jnp.sum(entropy_loss(token_entropy=entropy, mean_probability=probability))

    values, results = {}, {}
    for name, function in (("direct", direct), ("chunked", chunked)):
        numbers, results[name] = _memory_and_time(function, latents, codebooks, clock=clock)
        values |= {f"{name} {quantity}": value for quantity, value in numbers.items()}
    for quantity in ("median (s)", "temporaries (bytes)"):
        ratio = values[f"chunked {quantity}"] / values[f"direct {quantity}"]
        values[f"chunked / direct {quantity.split()[0]}"] = ratio
    differences = jax.tree.map(_relative_difference, results["direct"], results["chunked"])
    return values | {"largest relative difference": float(max(jax.tree.leaves(differences)))}


def _relative_difference(a: Array, b: Array) -> Float[Array, ""]:
    return jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(a))


def _memory_and_time(function: Callable, latents: Array, codebooks: Array, *, clock: Clock) -> tuple[Values, PyTree]:
    """Numbers of a function with its gradients, and its result."""
    start = time.perf_counter()
    compiled = jax.jit(jax.value_and_grad(function, (0, 1))).lower(latents, codebooks).compile()
    values: Values = {"compilation (s)": time.perf_counter() - start}
    values["temporaries (bytes)"] = compiled.memory_analysis().temp_size_in_bytes
    seconds = timed(lambda _: (compiled(latents, codebooks), None), None, clock)
    return values | spread(seconds), compiled(latents, codebooks)
