"""Benchmarks: each builds what it measures from a config, on noise and random weights, and returns numbers by name."""

import dataclasses
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree
from ml_collections import ConfigDict

from fqgan_jax.losses.quantization_losses import codebook_loss, commitment_loss, entropy_loss, soft_entries_loss
from fqgan_jax.models.applying import apply
from fqgan_jax.models.quantizers import CodebookQuantizer, Quantizer, QuantizerSizes, quantizers
from fqgan_jax.performance.chips import chip_of
from fqgan_jax.performance.flops import count_flops
from fqgan_jax.performance.inference import Inference
from fqgan_jax.performance.measure import Clock, Values, Work, copy_bandwidth, measure, spread, timed
from fqgan_jax.performance.tasks import StepInputs, make_step, model_flops
from fqgan_jax.sharding.mesh import batch_sharding, batch_shards, make_mesh, replicated
from fqgan_jax.training.from_config import check_batch_size

SAMPLE_BATCHES = (1, 8, 64)
LARGEST_TABLE = 2**29  # distances at once, 2 GB


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


def bench_inference(inference: Inference, batch_size: int, clock: Clock) -> Values:
    """Measures a tokenizer's `encoding` or `decoding` on all devices of this machine."""
    mesh, key = make_mesh({"data": -1}), jax.random.key(0)
    check_batch_size(batch_size, batch_shards(mesh))
    params = jax.jit(inference.init, out_shardings=replicated(mesh))(key)

    def random_batch(key: Array) -> PyTree:
        return inference.random_batch(key, batch_size)

    batch = jax.jit(random_batch, out_shardings=batch_sharding(mesh))(key)
    grid = inference.module.grid
    work = Work(
        lowered=jax.jit(inference.function).lower(params, batch),
        inputs=batch,
        call=lambda compiled, batch: (compiled(params, batch), batch),
        images=batch_size,
        tokens=batch_size * grid[0] * grid[1],
        flops=count_flops(inference.function, params, batch),
    )
    return measure(work, clock)


def bench_sampling(inference: Inference, clock: Clock) -> Values:
    """Measures guided `sampling` on one device, for batches of `SAMPLE_BATCHES`, against the traffic floor.

    Each batch is one program, compiled ahead of time: other labels and keys run in the same one.
    """
    params = jax.jit(inference.init)(jax.random.key(0))
    chip = chip_of(jax.devices()[0])
    bandwidth = chip.bandwidth if chip else copy_bandwidth()
    origin = chip.name if chip else "a copy, measured"
    values: dict[str, float | str] = {"bandwidth (GB/s)": bandwidth / 1e9, "bandwidth from": origin}
    for size in SAMPLE_BATCHES:
        floor = inference.floor(params, size) / bandwidth
        numbers = _bench_samples(inference, params, batch_size=size, clock=clock)
        numbers |= {"traffic floor (s)": floor, "median / floor": numbers["median (s)"] / floor}
        values |= {f"batch {size}: {name}": value for name, value in numbers.items()}
    return values


def _bench_samples(inference: Inference, params: PyTree, *, batch_size: int, clock: Clock) -> dict[str, float]:
    """Time and rates of drawing a batch."""
    batch = inference.random_batch(jax.random.key(1), batch_size)
    start = time.perf_counter()
    compiled = jax.jit(inference.function).lower(params, batch).compile()
    compilation = time.perf_counter() - start

    def call(batch):
        # Other labels and samples each time; a program for other shapes, or a second one, would be refused.
        return compiled(params, batch), jax.tree.map(lambda x: x[::-1], batch)

    times = spread(timed(call, batch, clock))
    (h, w), K = inference.module.grid, inference.module.num_codebooks
    median, positions = times["median (s)"], h * w
    return {
        "compilation (s)": compilation,
        **times,
        "images/s": batch_size / median,
        "tokens/s": batch_size * positions * K / median,
        "ms a position": median / positions * 1e3,
    }


def bench_quantizer(name: str, sizes: QuantizerSizes, *, tokens: int, clock: Clock) -> dict[str, float]:
    """Measures a quantizer in training, its statistics and gradients included.

    A quantizer with a table is also measured with all distances at once, if that is as little as `LARGEST_TABLE`.

    Args:
      name: row of `quantizers`.
      sizes: its settings.
      tokens: in all, a multiple of 256.
      clock: how often it runs.

    Returns:
      The numbers of both, their ratios, and the largest relative difference of any gradient.
    """
    shape = (tokens // 256, 16, 16, sizes.num_codebooks, sizes.code_dim)
    latents = jax.random.normal(jax.random.key(0), shape)
    kinds = {"chunked": sizes}
    has_table = issubclass(quantizers[name], CodebookQuantizer)
    if has_table and tokens * sizes.num_codebooks * sizes.codebook_size <= LARGEST_TABLE:
        kinds["direct"] = dataclasses.replace(sizes, chunk_tokens=tokens)
    values: dict[str, float] = {}
    results: dict[str, PyTree] = {}
    for kind, settings in kinds.items():
        step = training_of(quantizers[name](sizes=settings))
        params = quantizers[name](sizes=settings).init(jax.random.key(1), latents).get("params", {})
        numbers, results[kind] = _memory_and_time(step, params, latents, clock=clock)
        values |= {f"{kind} {quantity}": value for quantity, value in numbers.items()}
    if "direct" not in kinds:
        return values
    for quantity in ("median (s)", "temporaries (bytes)"):
        ratio = values[f"chunked {quantity}"] / values[f"direct {quantity}"]
        values[f"chunked / direct {quantity.split()[0]}"] = ratio
    differences = jax.tree.map(_relative_difference, results["direct"], results["chunked"])
    return values | {"largest relative difference": float(max(jax.tree.leaves(differences)))}


def training_of(module: Quantizer) -> Callable[[PyTree, Array], tuple[Array, tuple[PyTree, Array]]]:
    """Returns what training makes of a quantizer: its losses, with gradients to its parameters and the latents."""

    def loss(params: PyTree, latents: Array) -> Float[Array, ""]:
        output = apply(module, params, latents)
        found = vars(output)
        losses = (codebook_loss(**found), commitment_loss(**found), soft_entries_loss(**found), entropy_loss(**found))
        return sum(jnp.sum(value) for value in losses if value is not None) + jnp.mean(output.quantized**3)

    return jax.value_and_grad(loss, (0, 1))


def _relative_difference(a: Array, b: Array) -> Float[Array, ""]:
    return jnp.max(jnp.abs(a - b)) / jnp.maximum(jnp.max(jnp.abs(a)), 1e-30)


def _memory_and_time(
    function: Callable, params: PyTree, latents: Array, *, clock: Clock
) -> tuple[dict[str, float], PyTree]:
    """Numbers of a function, and its result."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(params, latents).compile()
    compilation, sizes = time.perf_counter() - start, compiled.memory_analysis()
    assert sizes is not None
    values = {"compilation (s)": compilation, "temporaries (bytes)": sizes.temp_size_in_bytes}
    seconds = timed(lambda _: (compiled(params, latents), None), None, clock)
    return values | spread(seconds), compiled(params, latents)
