"""Benchmarks: each compiles what it measures ahead of time and returns plain numbers by name."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fqgan_jax.losses.quantization import entropy_loss
from fqgan_jax.models.quantizer import l2_normalize, soft_assignment, squared_distances
from fqgan_jax.sharding.mesh import batch_sharding, batch_shards, make_mesh, replicated
from fqgan_jax.sharding.rules import state_sharding
from fqgan_jax.training import metrics as metrics_lib
from fqgan_jax.training.loop import TASKS, compiled_step


def bench_training(config, steps: int) -> dict[str, float]:
    """The config's training step on all devices here, on noise and with random frozen networks.

    Returns seconds to compile and of a step, images a second, bytes of temporaries a device, and the last metrics.
    """
    mesh, key = make_mesh(dict(config.mesh)), jax.random.key(0)
    task = TASKS[config.task](config, batch_shards(mesh))
    sharding = state_sharding(jax.eval_shape(task.init, key), mesh)
    state = jax.jit(task.init, out_shardings=sharding)(key)
    frozen = jax.jit(task.random_frozen, out_shardings=replicated(mesh))(key)
    batch = jax.jit(task.random_batch, out_shardings=batch_sharding(mesh))(key)
    step, values = _compiled(compiled_step(task, sharding, mesh), state, frozen, batch)
    state, metrics = step(state, frozen, batch)
    jax.block_until_ready(metrics)
    start = time.monotonic()
    for _ in range(steps):
        state, metrics = step(state, frozen, batch)
    last = metrics_lib.compute(metrics)
    seconds = (time.monotonic() - start) / steps
    values |= {"step (s)": seconds, "images/s": config.data.batch_size / seconds}
    return values | {f"last {name}": value for name, value in last.items()}


def bench_quantizer(
    num_codebooks: int, codebook_size: int, code_dim: int, tokens: int, chunk_tokens: int, steps: int
) -> dict[str, float]:
    """The entropy loss with its gradients, `chunk_tokens` at a time and with all distances at once.

    Returns seconds, bytes of temporaries, their ratios, and the largest relative difference of any gradient.
    """
    keys = jax.random.split(jax.random.key(0))
    latents = l2_normalize(jax.random.normal(keys[0], (tokens // 256, 256, num_codebooks, code_dim)))
    codebooks = l2_normalize(jax.random.normal(keys[1], (num_codebooks, codebook_size, code_dim)))

    def direct(x, codebooks):
        log_p = jax.nn.log_softmax(-squared_distances(x, codebooks) / 0.01)
        p = jnp.exp(log_p)
        return jnp.sum(entropy_loss(-jnp.mean(jnp.sum(p * log_p, -1), (0, 1)), jnp.mean(p, (0, 1))))

    def chunked(x, codebooks):
        _, entropy, probability = soft_assignment(x, codebooks, 0.01, chunk_tokens)
        return jnp.sum(entropy_loss(entropy, probability))

    values, results = {}, {}
    for name, function in (("direct", direct), ("chunked", chunked)):
        compiled, numbers = _compiled(jax.jit(jax.value_and_grad(function, (0, 1))), latents, codebooks)
        seconds, results[name] = _time(compiled, (latents, codebooks), steps)
        values |= {f"{name} {what}": value for what, value in (numbers | {"step (s)": seconds}).items()}
    for what in ("step (s)", "temporaries (bytes)"):
        values[f"chunked / direct {what.split()[0]}"] = values[f"chunked {what}"] / values[f"direct {what}"]
    difference = lambda a, b: jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(a))
    differences = jax.tree.leaves(jax.tree.map(difference, results["direct"], results["chunked"]))
    return values | {"largest relative difference": float(max(differences))}


def _compiled(function: Callable, *arguments) -> tuple[Callable, dict[str, float]]:
    """The function compiled for its arguments, how long that took and the memory within it."""
    start = time.monotonic()
    compiled = function.lower(*arguments).compile()
    seconds = time.monotonic() - start
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    return compiled, {"compilation (s)": seconds, "temporaries (bytes)": temporaries}


def _time(compiled: Callable, arguments: tuple, steps: int) -> tuple[float, object]:
    """Seconds of a call after a first one, and its result."""
    result = jax.block_until_ready(compiled(*arguments))
    start = time.monotonic()
    for _ in range(steps):
        result = compiled(*arguments)
    jax.block_until_ready(result)
    return (time.monotonic() - start) / steps, result
