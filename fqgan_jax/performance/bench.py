"""Benchmarks: each builds what it measures from a config, on noise and random weights, and returns numbers by name."""

import dataclasses
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree
from ml_collections import ConfigDict

from fqgan_jax.losses.quantization_losses import entropy_loss
from fqgan_jax.models.distances import l2_normalize, soft_assignment, squared_distances
from fqgan_jax.performance.chips import chip_of
from fqgan_jax.performance.flops import count_flops
from fqgan_jax.performance.inference import Inference
from fqgan_jax.performance.measure import Clock, Values, Work, copy_bandwidth, measure, spread, timed
from fqgan_jax.performance.tasks import StepInputs, make_step, model_flops
from fqgan_jax.sharding.mesh import batch_sharding, batch_shards, make_mesh, replicated
from fqgan_jax.training.from_config import check_batch_size

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


def bench_inference(inference: Inference, batch_size: int, clock: Clock) -> Values:
    """Measures a tokenizer's `encoding` or `decoding` on all devices of this machine."""
    mesh, key = make_mesh({"data": -1}), jax.random.key(0)
    check_batch_size(batch_size, batch_shards(mesh))
    params = jax.jit(inference.init, out_shardings=replicated(mesh))(key)
    random_batch = partial(inference.random_batch, size=batch_size)
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
    values: Values = {"bandwidth (GB/s)": bandwidth / 1e9, "bandwidth from": chip.name if chip else "a copy, measured"}
    for size in SAMPLE_BATCHES:
        floor = inference.floor(params, size) / bandwidth
        numbers = _bench_samples(inference, params, batch_size=size, clock=clock)
        numbers |= {"traffic floor (s)": floor, "median / floor": numbers["median (s)"] / floor}
        values |= {f"batch {size}: {name}": value for name, value in numbers.items()}
    return values


def _bench_samples(inference: Inference, params: PyTree, *, batch_size: int, clock: Clock) -> Values:
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
