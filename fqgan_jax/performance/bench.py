"""Benchmarks: each builds what it measures from a config, on noise and random weights, and returns numbers by name."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fqgan_jax.data.pixels import to_float
from fqgan_jax.losses.tokenizer_losses import entropy_loss
from fqgan_jax.models.distances import l2_normalize, soft_assignment, squared_distances
from fqgan_jax.models.far import FAR
from fqgan_jax.models.fields import build_module
from fqgan_jax.models.sampling import sample_codes, sampling_options
from fqgan_jax.performance.chips import chip_of
from fqgan_jax.performance.flops import count_flops
from fqgan_jax.performance.measure import Clock, Values, Work, copy_bandwidth, measure, spread, timed
from fqgan_jax.performance.tasks import make_step, model_flops
from fqgan_jax.sharding.mesh import batch_sharding, batch_shards, make_mesh, replicated
from fqgan_jax.training.from_config import check_batch_size, tokenizer_fields
from fqgan_jax.training.generator_task import GeneratorTask

SAMPLE_BATCHES = (1, 8, 64)


def bench_training(config, tokenizer_config, clock: Clock) -> Values:
    """The config's training step on all devices here, with random frozen networks."""
    step, key = make_step(config, None, tokenizer_config), jax.random.key(0)
    makers = (step.task.init, step.task.random_frozen, step.task.random_batch)
    arguments = tuple(
        jax.jit(make, out_shardings=places)(key) for make, places in zip(makers, step.shardings, strict=True)
    )
    grid, size = step.task.module.grid, config.data.batch_size
    return measure(
        Work(
            step.function,
            arguments,
            images=size,
            tokens=size * grid[0] * grid[1],
            flops=model_flops(config, None, tokenizer_config),
            feed=lambda result, arguments: (result[0], *arguments[1:]),
        ),
        clock,
    )


def bench_tokenizer(config, method: str, clock: Clock) -> Values:
    """`encode` (uint8 images to codes) or `decode` (codes to images) on all devices here."""
    module, size = build_module("tokenizer", tokenizer_fields(config)), config.data.batch_size
    mesh, key = make_mesh({"data": -1, "fsdp": 1}), jax.random.key(0)
    check_batch_size(size, batch_shards(mesh))
    side, (h, w) = config.data.image_size, module.grid
    init = lambda key: module.init(key, jnp.zeros((1, side, side, 3)))["params"]
    params = jax.jit(init, out_shardings=replicated(mesh))(key)
    apply = lambda params, x: module.apply({"params": params}, x, method=method)
    if method == "encode":
        function = lambda params, images: apply(params, to_float(images))
        make = lambda key: jax.random.bits(key, (size, side, side, 3), jnp.uint8)
    else:
        function = apply
        make = lambda key: jax.random.randint(key, (size, h, w, module.num_codebooks), 0, module.codebook_size)
    batch = jax.jit(make, out_shardings=batch_sharding(mesh))(key)
    flops = count_flops(function, params, batch)
    return measure(Work(jax.jit(function), (params, batch), size, size * h * w, flops), clock)


def bench_sampling(config, tokenizer_config, clock: Clock) -> Values:
    """Drawing codes with guidance on one device, for batches of `SAMPLE_BATCHES`, against the traffic floor.

    Each batch is one program, compiled ahead of time: other labels and keys run in the same one.
    """
    module = GeneratorTask.without_data(config, 1, tokenizer_config=tokenizer_config).module
    h, w = module.grid
    blank = jnp.zeros((1, h * w, module.num_codebooks), jnp.int32)
    params = jax.jit(lambda key: module.init(key, blank, jnp.zeros(1, jnp.int32))["params"])(jax.random.key(0))
    chip = chip_of(jax.devices()[0])
    bandwidth = chip.bandwidth if chip else copy_bandwidth()
    values: Values = {"bandwidth (GB/s)": bandwidth / 1e9, "bandwidth from": chip.name if chip else "a copy, measured"}

    def sample(params, keys, labels, options):
        return sample_codes(module, params, keys=keys, labels=labels, options=options)

    for size in SAMPLE_BATCHES:
        keys = jax.random.split(jax.random.key(1), size)
        arguments = (params, keys, jnp.arange(size) % module.num_classes, sampling_options(module.num_codebooks))
        start = time.perf_counter()
        compiled = jax.jit(sample).lower(*arguments).compile()
        compilation = time.perf_counter() - start
        # Other labels and keys each time; a program for other shapes, or a second one, would be refused.
        feed = lambda result, arguments: (arguments[0], arguments[1][::-1], arguments[2][::-1], arguments[3])
        seconds = timed(compiled, arguments, clock, feed)
        median, floor = spread(seconds)["median (s)"], sampling_floor_bytes(module, params, size) / bandwidth
        numbers = {"compilation (s)": compilation, **spread(seconds), "images/s": size / median}
        numbers |= {"tokens/s": size * h * w * module.num_codebooks / median, "ms a position": median / (h * w) * 1e3}
        numbers |= {"traffic floor (s)": floor, "median / floor": median / floor}
        values |= {f"batch {size}: {name}": value for name, value in numbers.items()}
    return values


def sampling_floor_bytes(module: FAR, params, batch_size: int) -> float:
    """Bytes that guided sampling of a batch must read: all weights at each position, and the keys and values so far.

    Weights in the compute dtype; the head's at each of a position's K codes, the output matrices once a position.
    """
    width = module.dtype.itemsize if hasattr(module.dtype, "itemsize") else jnp.dtype(module.dtype).itemsize
    count = lambda name: sum(leaf.size for leaf in jax.tree.leaves(params[name]))
    weights = count("backbone") + count("aggregate") + count("outputs") + module.num_codebooks * count("head")
    positions = module.grid[0] * module.grid[1]
    pasts = positions * (positions + 1) / 2  # keys and values of all earlier positions, summed over positions
    cached = 2 * module.depth * module.width * 2 * batch_size  # of conditional and unconditional rows
    return width * (positions * weights + pasts * cached)


def bench_quantizer(
    num_codebooks: int, codebook_size: int, code_dim: int, tokens: int, chunk_tokens: int, clock: Clock
) -> Values:
    """The entropy loss with its gradients, `chunk_tokens` at a time and with all distances at once.

    Returns the numbers of both, their ratios, and the largest relative difference of any gradient.
    """
    keys = jax.random.split(jax.random.key(0))
    latents = l2_normalize(jax.random.normal(keys[0], (tokens // 256, 256, num_codebooks, code_dim)))
    codebooks = l2_normalize(jax.random.normal(keys[1], (num_codebooks, codebook_size, code_dim)))

    def direct(x, codebooks):
        log_p = jax.nn.log_softmax(-squared_distances(x, codebooks) / 0.01)
        p = jnp.exp(log_p)
        token_entropy = -jnp.mean(jnp.sum(p * log_p, -1), (0, 1))
        return jnp.sum(entropy_loss(token_entropy=token_entropy, mean_probability=jnp.mean(p, (0, 1))))

    def chunked(x, codebooks):
        _, entropy, probability = soft_assignment(x, codebooks, temperature=0.01, chunk_tokens=chunk_tokens)
        return jnp.sum(entropy_loss(token_entropy=entropy, mean_probability=probability))

    values, results = {}, {}
    for name, function in (("direct", direct), ("chunked", chunked)):
        numbers, results[name] = _memory_and_time(function, (latents, codebooks), clock)
        values |= {f"{name} {what}": value for what, value in numbers.items()}
    for what in ("median (s)", "temporaries (bytes)"):
        values[f"chunked / direct {what.split()[0]}"] = values[f"chunked {what}"] / values[f"direct {what}"]
    difference = lambda a, b: jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(a))
    differences = jax.tree.leaves(jax.tree.map(difference, results["direct"], results["chunked"]))
    return values | {"largest relative difference": float(max(differences))}


def _memory_and_time(function: Callable, arguments: tuple, clock: Clock) -> tuple[Values, object]:
    """Numbers of a function with its gradients, and its result."""
    start = time.perf_counter()
    compiled = jax.jit(jax.value_and_grad(function, (0, 1))).lower(*arguments).compile()
    values = {"compilation (s)": time.perf_counter() - start}
    values["temporaries (bytes)"] = compiled.memory_analysis().temp_size_in_bytes
    return values | spread(timed(compiled, arguments, clock)), compiled(*arguments)
