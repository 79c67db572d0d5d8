"""Time, memory and peak shares of one compiled function."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import jax
import jax.numpy as jnp

from fqgan_jax.performance.chips import chip_of
from fqgan_jax.performance.hlo import read_traffic
from fqgan_jax.performance.roofline import roofline

Values = dict[str, float | str]


@dataclasses.dataclass(frozen=True)
class Work:
    """What a benchmark runs again and again.

    Attributes:
      function: jitted.
      arguments: of its first call.
      images: a call works on, all devices together.
      tokens: a call works on.
      flops: operations of a call that computes nothing twice, all devices together.
      feed: arguments of the next call from a call's result and arguments; a training step goes on with its state.
    """

    function: Callable
    arguments: tuple
    images: int
    tokens: int
    flops: float
    feed: Callable = lambda result, arguments: arguments


@dataclasses.dataclass(frozen=True)
class Clock:
    """How often a benchmark runs.

    Attributes:
      warm_up: calls that are not timed.
      repeats: calls that are.
      profile: folder for a trace of the timed calls, or None.
    """

    warm_up: int = 2
    repeats: int = 5
    profile: Path | None = None


def measure(work: Work, clock: Clock) -> Values:
    """Compiles the work, runs it and tells what it took, a device.

    Peak shares need the chip's figures (`chips`): where the table has none they are "not known".
    """
    start = time.perf_counter()
    compiled = work.function.lower(*work.arguments).compile()
    values: Values = {"compilation (s)": time.perf_counter() - start}
    seconds = timed(compiled, work.arguments, clock, work.feed)
    devices, device = jax.device_count(), jax.devices()[0]
    values |= spread(seconds)
    median = values["median (s)"]
    values["images/s a device"] = work.images / median / devices
    values["tokens/s a device"] = work.tokens / median / devices
    traffic = read_traffic(compiled.as_text(), devices)
    values |= _memory(compiled, device)
    values["TFLOP/s a device"] = work.flops / devices / median / 1e12
    values["memory traffic (GB, estimate)"] = traffic.bytes / 1e9
    values["achieved bandwidth (GB/s, estimate)"] = traffic.bytes / median / 1e9
    chip = chip_of(device)
    if chip is None:
        unknown = f"not known: no peak figures of {device.device_kind}"
        return values | {"model FLOPs utilization": unknown, "roofline": unknown}
    least = roofline(chip, work.flops / devices, traffic.bytes, traffic.collectives)
    return values | {
        "model FLOPs utilization": work.flops / devices / median / chip.flops,
        "roofline (s)": least.seconds,
        "roofline bound": least.bound,
        "roofline / median": least.seconds / median,
    }


def timed(function: Callable, arguments: tuple, clock: Clock, feed: Callable = Work.feed) -> list[float]:
    """Seconds of each call, waited for, after the warm-up."""

    def call(arguments):
        result = jax.block_until_ready(function(*arguments))
        return feed(result, arguments)

    for _ in range(clock.warm_up):
        arguments = call(arguments)
    seconds = []
    with jax.profiler.trace(str(clock.profile)) if clock.profile else nullcontext():
        for _ in range(clock.repeats):
            start = time.perf_counter()
            arguments = call(arguments)
            seconds.append(time.perf_counter() - start)
    return seconds


def spread(seconds: list[float]) -> Values:
    """Median and range."""
    return {"median (s)": statistics.median(seconds), "fastest (s)": min(seconds), "slowest (s)": max(seconds)}


def copy_bandwidth(size: int = 2**28) -> float:
    """Bytes a second, read and written, of a copy on one device: the bandwidth of a device without a table entry."""
    x = jax.device_put(jnp.zeros(size // 4, jnp.float32), jax.devices()[0])
    return 2 * size / min(timed(jax.jit(lambda x: x + 1), (x,), Clock(warm_up=2, repeats=5)))


def _memory(compiled, device: jax.Device) -> Values:
    """Peak memory of a device: its own count where it keeps one, else what the compiler planned."""
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
    if peak is not None:
        return {"peak memory (GiB)": peak / 2**30}
    sizes = compiled.memory_analysis()
    total = sizes.argument_size_in_bytes + sizes.temp_size_in_bytes + sizes.output_size_in_bytes
    return {"memory by the compiler's plan (GiB)": (total - sizes.alias_size_in_bytes) / 2**30}
