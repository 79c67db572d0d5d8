"""What a training step needs on chips that are not here: compiled ahead of time for their topology."""

import dataclasses
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import jax
from jaxtyping import PyTree

from fqgan_jax.errors import UserError
from fqgan_jax.performance.chips import Chip, chip_of
from fqgan_jax.performance.hlo import Traffic, read_traffic
from fqgan_jax.performance.roofline import Roofline, roofline
from fqgan_jax.performance.tasks import Step, make_step, model_flops

_NO_TPU_HERE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing is run, so plans may be made side by side
}


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """One training step, per chip; memory in bytes.

    Attributes:
      chip: its figures, None where the table has none.
      memory: bytes by kind; where a step does not fit, its `temporaries` are what the compiler says it lacks room for.
      available: bytes that the compiler gives a program, None where it does not say.
      fits: whether the compiler found room for it.
      model_flops: operations of a step that computes nothing twice.
      flops: operations with what the backward pass computes again.
      xla_flops: XLA's own count, which has the body of every loop once.
      traffic: memory traffic and collectives, None where the step does not fit.
      compile_seconds: how long the compiler took.
    """

    devices: int
    chips: int
    batch_size: int
    chip: Chip | None
    memory: dict[str, float]
    available: float | None
    fits: bool
    model_flops: float
    flops: float
    xla_flops: float | None
    traffic: Traffic | None
    compile_seconds: float

    @property
    def total_memory(self) -> float:
        """Bytes a chip needs."""
        return sum(self.memory.values())

    @property
    def images_per_chip(self) -> float:
        return self.batch_size / self.chips

    @property
    def roofline(self) -> Roofline | None:
        """The least time of the step, where chip and traffic are known."""
        if self.chip is None or self.traffic is None:
            return None
        return roofline(self.chip, self.flops, self.traffic.bytes, self.traffic.collectives)


def topology_devices(name: str) -> Sequence[jax.Device]:
    """Devices of a TPU topology such as "v5e:4x4", none of which is needed here, or those here for "local".

    Raises:
      UserError: an unknown topology, or the TPU compiler is not installed.
    """
    if name == "local":
        return jax.devices()
    # Without these the compiler looks for TPUs of its own and complains that there are none.
    for variable, value in _NO_TPU_HERE.items():
        os.environ.setdefault(variable, value)
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"There is no plan for topology {name!r} ({str(error).splitlines()[0]}): install the TPU compiler with "
            "pip install fqgan-jax[tpu], and choose a topology such as v5e:4x4, v5p:8x8x4 or v6e:16x16, or local."
        ) from error


def count_chips(devices: Sequence[jax.Device]) -> int:
    """Chips of the devices: a v4 has two cores, and each is a device of its own."""
    places = {getattr(device, "coords", None) and tuple(device.coords) for device in devices}
    return len(devices) if None in places else len(places)


def plan_step(config, devices: Sequence[jax.Device], tokenizer_config=None) -> StepPlan:
    """Compiles the config's training step for devices, from shapes alone.

    `tokenizer_config`: see `make_step`.

    Raises:
      UserError: sizes that cannot work together.
    """
    step, chips = make_step(config, devices, tokenizer_config), count_chips(devices)
    cores = len(devices) // chips
    memory = {kind: size * cores for kind, size in argument_bytes(step).items()}
    start, compiled, available = time.monotonic(), None, _available(devices[0])
    try:
        with _without_cache():
            compiled = step.function.lower(*step.arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        needed, available = _out_of_memory(error)
        memory["temporaries"] = max(needed * cores - sum(memory.values()), 0)
    seconds = time.monotonic() - start
    traffic, xla_flops = None, None
    if compiled is not None:
        sizes, cost = compiled.memory_analysis(), compiled.cost_analysis()
        memory["padding"] = max(sizes.argument_size_in_bytes * cores - sum(memory.values()), 0)
        memory["temporaries"] = sizes.temp_size_in_bytes * cores
        memory["outputs"] = max(sizes.output_size_in_bytes - sizes.alias_size_in_bytes, 0) * cores
        memory["program"] = sizes.generated_code_size_in_bytes * cores
        traffic = read_traffic(compiled.as_text(), len(devices)).times(cores)
        xla_flops = cost["flops"] * cores
    available, chip = available and available * cores, chip_of(devices[0])
    # With little effort the compiler for TPUs does not look whether a program fits.
    limit = available or (chip and chip.memory)
    return StepPlan(
        devices=len(devices),
        chips=chips,
        batch_size=config.data.batch_size,
        chip=chip,
        memory=memory,
        available=available,
        fits=compiled is not None and (limit is None or sum(memory.values()) <= limit),
        model_flops=model_flops(config, devices, tokenizer_config) / chips,
        flops=step.flops / chips,
        xla_flops=xla_flops,
        traffic=traffic,
        compile_seconds=seconds,
    )


@contextmanager
def _without_cache() -> Iterator[None]:
    """JAX's cache of compiled programs left aside: what is compiled for a topology cannot be read back from it."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)


def argument_bytes(step: Step) -> dict[str, float]:
    """Bytes on each device of what the step takes, by kind."""
    (state, frozen, batch), (places, frozen_places, batch_places) = step.arguments, step.shardings
    theirs, their_places = state.adversary, places.adversary
    trees = {
        "parameters": [(state.params, places.params)],
        "optimizer": [(state.opt_state, places.opt_state)],
        "moving average": [(state.ema, places.ema)],
        "frozen networks": [(frozen, frozen_places)],
        "batch": [(batch, batch_places)],
    }
    if theirs is not None:
        trees["parameters"].append((theirs.params, their_places.params))
        trees["optimizer"].append((theirs.opt_state, their_places.opt_state))
    return {kind: sum(_bytes_on_device(*pair) for pair in pairs) for kind, pairs in trees.items()}


def _bytes_on_device(tree: PyTree, places: PyTree) -> float:
    one = lambda leaf, place: jax.ShapeDtypeStruct(place.shard_shape(leaf.shape), leaf.dtype)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.tree.map(one, tree, places)))


def _available(device: jax.Device) -> float | None:
    """Bytes of memory that a program may take, where the device is here and says so."""
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


def largest_batch(
    config, devices: Sequence[jax.Device], tokenizer_config=None, tell: Callable = lambda plan: None, compiles: int = 5
) -> StepPlan:
    """The plan with the most examples a chip that fits, found in a few compilations.

    Memory is about linear in the batch: two plans tell where it ends, the next ones confirm.

    Args:
      tell: called with every plan that is made.

    Raises:
      UserError: not even one example a chip fits.
    """
    chips, plans = count_chips(devices), {}
    cores = len(devices) // chips

    def attempt(examples: int) -> None:
        changed = config.copy_and_resolve_references()
        changed.data.batch_size = examples * len(devices)
        plans[examples] = plan_step(changed, devices, tokenizer_config)
        tell(plans[examples])

    attempt(max(config.data.batch_size // len(devices), 1))
    while len(plans) < compiles:
        fitting = max((n for n, plan in plans.items() if plan.fits), default=0)
        failing = min((n for n, plan in plans.items() if not plan.fits), default=None)
        if failing == fitting + 1:
            break
        attempt(_next_batch(plans, fitting, failing))
    fitting = [n for n, plan in plans.items() if plan.fits]
    if not fitting:
        needed = plans[min(plans)].total_memory / cores / 2**30
        raise UserError(
            f"No batch fits: {min(plans)} example(s) a device need {needed:.1f} GiB. "
            "Set model.remat, or split the state with mesh.fsdp."
        )
    return plans[max(fitting)]


def _next_batch(plans: dict[int, StepPlan], fitting: int, failing: int | None) -> int:
    """Where the line through the two nearest plans ends, kept between what fits and what does not."""
    room = next((plan.available for plan in plans.values() if plan.available), None)
    room = room or next(plan.chip.memory * 0.98 for plan in plans.values())
    if len(plans) == 1:
        return 2 * fitting if fitting else max(failing // 2, 1)
    near = sorted(plans, key=lambda n: abs(plans[n].total_memory - room))[:2]
    low, high = sorted(near)
    slope = (plans[high].total_memory - plans[low].total_memory) / (high - low)
    guess = int(low + (room - plans[low].total_memory) / slope) if slope > 0 else 2 * high
    return min(max(guess, fitting + 1), failing - 1 if failing else max(guess, fitting + 1))
