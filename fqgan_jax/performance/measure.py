"""Time, memory and peak shares of one compiled function."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from fqgan_jax.performance.chips import chip_of
from fqgan_jax.performance.roofline import roofline
from fqgan_jax.performance.topology import hosts_of
from fqgan_jax.performance.traffic import read_traffic

Values = Mapping[str, float | str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """The function that a benchmark runs repeatedly.

    Attributes:
      lowered: the program.
      inputs: inputs of its first call.
      call: `call(compiled, inputs)` runs the program once; it returns the result, and the inputs of the next call.
      images: that a call works on, all devices together.
      tokens: that a call works on, all devices together.
      flops: operations of a call without recomputation, all devices together.
    """

    lowered: jax.stages.Lowered
    inputs: Any
    call: Callable[[jax.stages.Compiled, Any], tuple[PyTree, Any]]
    images: int
    tokens: int
    flops: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clock:
    """How often a benchmark runs.

    Attributes:
      warm_up: calls that are not timed.
      repeats: calls that are timed.
      profile: folder for a trace of the timed calls, or None.
    """

    warm_up: int = 2
    repeats: int = 5
    profile: Path | None = None


def measure(work: Work, clock: Clock) -> Values:
    """Compiles the work, runs it, and returns time, memory and rates of a device.

    Shares of a chip's peak need its figures (`chips`): if the table has none they are "not known".
    """
    start = time.perf_counter()
    compiled = work.lowered.compile()
    values: dict[str, float | str] = {"compilation (s)": time.perf_counter() - start}
    times = spread(timed(partial(work.call, compiled), work.inputs, clock))
    values |= times
    devices, device, median = jax.device_count(), jax.devices()[0], times["median (s)"]
    values["images/s a device"] = work.images / median / devices
    values["tokens/s a device"] = work.tokens / median / devices
    text = compiled.as_text()
    assert text is not None
    traffic = read_traffic(text, hosts_of(jax.devices()))
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


def timed(call: Callable[[Any], tuple[PyTree, Any]], inputs: Any, clock: Clock) -> list[float]:
    """Returns the seconds of each call after the warm-up, with the wait for its result.

    Args:
      call: returns a result, and the inputs of the next call.
      inputs: inputs of the first call.
      clock: how often it is called.
    """

    def next_inputs(inputs: Any) -> Any:
        result, following = call(inputs)
        jax.block_until_ready(result)
        return following

    for _ in range(clock.warm_up):
        inputs = next_inputs(inputs)
    seconds = []
    with nullcontext() if clock.profile is None else jax.profiler.trace(str(clock.profile)):
        for _ in range(clock.repeats):
            start = time.perf_counter()
            inputs = next_inputs(inputs)
            seconds.append(time.perf_counter() - start)
    return seconds


def spread(seconds: list[float]) -> dict[str, float]:
    """Returns median and range."""
    return {"median (s)": statistics.median(seconds), "fastest (s)": min(seconds), "slowest (s)": max(seconds)}


def copy_bandwidth(size: int = 2**28) -> float:
    """Returns the bytes per second, read and written, of a copy on one device, for devices without a table entry."""
    increment = jax.jit(lambda x: x + 1)
    x = jax.device_put(jnp.zeros(size // 4, jnp.float32), jax.devices()[0])
    return 2 * size / min(timed(lambda x: (increment(x), x), x, Clock(warm_up=2, repeats=5)))


def _memory(compiled, device: jax.Device) -> Values:
    """Peak memory of a device: its own count if it keeps one, else what the compiler planned."""
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
    if peak is not None:
        return {"peak memory (GiB)": peak / 2**30}
    sizes = compiled.memory_analysis()
    total = sizes.argument_size_in_bytes + sizes.temp_size_in_bytes + sizes.output_size_in_bytes
    return {"memory by the compiler's plan (GiB)": (total - sizes.alias_size_in_bytes) / 2**30}
