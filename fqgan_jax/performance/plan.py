"""The needs of a program, compiled ahead of time."""

import dataclasses
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from fqgan_jax.performance.chips import Chip, chip_of
from fqgan_jax.performance.programs import Program
from fqgan_jax.performance.roofline import Roofline, roofline
from fqgan_jax.performance.topology import compiler_options, count_chips, hosts_of
from fqgan_jax.performance.traffic import Traffic, read_traffic


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """One program, per chip; memory in bytes.

    Attributes:
      program: name of the program.
      devices: number of devices.
      chips: number of chips, each of which may be several devices.
      hosts: number of hosts; 1 if the chips' links join them all.
      batch_size: size of the global batch.
      chip: its figures, None if the table has none.
      memory: bytes by kind; if the program does not fit, its `temporaries` are those that the compiler reports.
      available: bytes that the compiler allows a program; None if it does not report them.
      fits: whether the compiler found room for it.
      model_flops: operations without recomputation.
      flops: operations including those that the backward pass recomputes.
      xla_flops: XLA's own count, which has the body of every loop once; None if the compiler has none.
      floor: bytes that must move at least.
      traffic: memory traffic and collectives, None if the program does not fit.
      compile_seconds: time of the compilation.
    """

    program: str
    devices: int
    chips: int
    hosts: int
    batch_size: int
    chip: Chip | None
    memory: dict[str, float]
    available: float | None
    fits: bool
    model_flops: float
    flops: float
    xla_flops: float | None
    floor: float
    traffic: Traffic | None
    compile_seconds: float

    @property
    def total_memory(self) -> float:
        """Bytes a chip needs."""
        return sum(self.memory.values())

    @property
    def images_per_chip(self) -> float:
        """Examples of a batch on each chip."""
        return self.batch_size / self.chips

    @property
    def roofline(self) -> Roofline | None:
        """The least time of the program, None if chip or traffic are not known."""
        if self.chip is None or self.traffic is None:
            return None
        return roofline(self.chip, self.flops, self.traffic.bytes, self.traffic.collectives)


def make_plan(program: Program) -> Plan:
    """Compiles a program for its devices, from shapes alone."""
    devices = program.devices
    chips, chip, hosts = count_chips(devices), chip_of(devices[0]), hosts_of(devices)
    cores = len(devices) // chips
    memory = {kind: size * cores for kind, size in program.memory.items()}
    start, compiled, available = time.monotonic(), None, _available(devices[0])
    try:
        with _without_cache():
            compiled = program.lower().compile(compiler_options=compiler_options(devices[0]))
    except jax.errors.JaxRuntimeError as error:
        needed, available = _out_of_memory(error)
        memory["temporaries"] = max(needed * cores - sum(memory.values()), 0)
    seconds = time.monotonic() - start
    traffic, xla_flops = None, None
    if compiled is not None:
        memory |= _program_bytes(compiled, inputs=sum(memory.values()), cores=cores)
        text = compiled.as_text()
        assert text is not None
        traffic = read_traffic(text, hosts).times(cores)
        xla_flops = _xla_flops(compiled, cores)
    if available is not None:
        available *= cores
    return Plan(
        program=program.name,
        devices=len(devices),
        chips=chips,
        hosts=len(set(hosts)),
        batch_size=program.batch_size,
        chip=chip,
        memory=memory,
        available=available,
        fits=compiled is not None and sum(memory.values()) <= _limit(available, chip),
        model_flops=program.model_flops / chips,
        flops=program.flops / chips,
        xla_flops=xla_flops,
        floor=program.floor * cores,
        traffic=traffic,
        compile_seconds=seconds,
    )


def _program_bytes(compiled: jax.stages.Compiled, *, inputs: float, cores: int) -> dict[str, float]:
    """Bytes on a chip that the program needs beside its `inputs`, by kind."""
    sizes = compiled.memory_analysis()
    assert sizes is not None
    return {
        "padding": max(sizes.argument_size_in_bytes * cores - inputs, 0),
        "temporaries": sizes.temp_size_in_bytes * cores,
        "outputs": max(sizes.output_size_in_bytes - sizes.alias_size_in_bytes, 0) * cores,
        "program": sizes.generated_code_size_in_bytes * cores,
    }


def _xla_flops(compiled: jax.stages.Compiled, cores: int) -> float | None:
    """XLA's count of operations on a chip; None if its compiler does not count them."""
    flops = (compiled.cost_analysis() or {}).get("flops")
    return None if flops is None else flops * cores


def _limit(available: float | None, chip: Chip | None) -> float:
    """Bytes that a program may take; the compiler for TPUs does not check them if it works with little effort."""
    if available:
        return available
    return float("inf") if chip is None else chip.memory


@contextmanager
def _without_cache() -> Iterator[None]:
    """Does without JAX's cache of compiled programs: programs for a topology cannot be read back from it."""
    before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)


def _available(device: jax.Device) -> float | None:
    """Bytes of memory available to a program; None if the device is not present or does not report it."""
    try:
        return (device.memory_stats() or {}).get("bytes_limit")
    except jax.errors.JaxRuntimeError:  # a device of a topology
        return None


def _out_of_memory(error: Exception) -> tuple[float, float]:
    """Bytes that a program needs and bytes that there are, from the compiler's refusal; raises any other error."""
    unit = {"K": 2**10, "M": 2**20, "G": 2**30}
    found = [float(number) * unit[letter] for number, letter in re.findall(r"\b([\d.]+)([KMG])\b", str(error))]
    if "RESOURCE_EXHAUSTED" not in str(error) or len(found) < 2:
        raise error
    return found[0], found[1]
