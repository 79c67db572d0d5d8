"""Runs the parts of `fqgan check` and says what holds."""

import dataclasses
import json
import logging
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import distributions

import jax

from fqgan_jax.check import attention, models, sharded  # noqa: F401  (they add the parts)
from fqgan_jax.check.numbers import Numbers, deviation
from fqgan_jax.check.parts import NotHereError, Part, parts
from fqgan_jax.check.subjects import Subjects
from fqgan_jax.errors import UserError
from fqgan_jax.sharding import processes

log = logging.getLogger(__name__)

PACKAGES = ("fqgan-jax", "jax", "jaxlib", "flax", "optax", "numpy", "libtpu")
PLUGINS = ("jax-cuda", "nvidia-cudnn", "nvidia-nccl")  # beginnings of names
VARIABLES = ("XLA_", "JAX_", "LIBTPU_", "NCCL_", "CUDA_VISIBLE_DEVICES")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a part gave.

    Attributes:
      part: its name.
      bound: of the deviation.
      deviation: the largest one of any process; None if the part did not run.
      note: the numbers that deviate most, the error, or why the part does not apply here.
      skipped: whether the part does not apply here.
    """

    part: str
    bound: float
    deviation: float | None = None
    note: str = ""
    skipped: bool = False

    @property
    def holds(self) -> bool:
        """Whether the deviation is within the bound; a part that does not apply holds."""
        return self.skipped or (self.deviation is not None and self.deviation <= self.bound)


def run_parts(subjects: Subjects, stored: Mapping[str, Numbers], names: Sequence[str] = ()) -> Iterator[Result]:
    """Yields the result of each part; on many processes, the worst one of any process, the same on all.

    Products of float32 are computed in float32; by default GPUs would use TF32 and TPUs bfloat16.

    Args:
      subjects: what the parts look at.
      stored: stored numbers of each part.
      names: of the parts to run; by default all.
    """
    for name in names or parts:
        with jax.default_matmul_precision("highest"):
            result = _run(name, parts[name], subjects=subjects, stored=stored.get(name))
        texts = processes.exchange(json.dumps(dataclasses.asdict(result)))
        results = [Result(**json.loads(text)) for text in texts]
        worst = max(range(len(results)), key=lambda index: _badness(results[index]))
        where = f" (process {worst})" if len(results) > 1 and not results[worst].holds else ""
        yield dataclasses.replace(results[worst], note=results[worst].note + where)


def _badness(result: Result) -> tuple[bool, float]:
    """Orders results from the best to the worst."""
    return not result.holds, math.inf if result.deviation is None else result.deviation


def _run(name: str, part: Part, *, subjects: Subjects, stored: Numbers | None) -> Result:
    result = Result(part=name, bound=part.bound)
    try:
        found = part.function(subjects)
    except NotHereError as reason:
        return dataclasses.replace(result, note=str(reason), skipped=True)
    except Exception as error:  # whatever it is, this part does not work here, and the others say what does
        log.debug("%s", name, exc_info=True)
        lines = str(error).splitlines() or [""]
        sentence = lines[0] if isinstance(error, UserError) else f"{type(error).__name__}: {lines[0]}"
        return dataclasses.replace(result, note=sentence)
    if not isinstance(found, tuple):
        if stored is None:
            return dataclasses.replace(result, note="there are no stored numbers")
        found = found, stored
    computed, expected = found
    size, worst = deviation(computed, expected)
    if not math.isfinite(size):
        return dataclasses.replace(result, note=f"{worst}: not finite, missing, or of another shape")
    return dataclasses.replace(result, deviation=size, note=worst)


def computed_numbers(subjects: Subjects) -> dict[str, Numbers]:
    """Returns the numbers of all parts that are compared with stored ones."""
    with jax.default_matmul_precision("highest"):
        found = {name: part.function(subjects) for name, part in parts.items() if part.stored}
    return {name: numbers for name, numbers in found.items() if not isinstance(numbers, tuple)}


def surroundings() -> dict[str, str]:
    """Returns the devices, the versions of what computes, and the flags in the environment."""
    device, count = jax.devices()[0], jax.device_count()
    hosts = f", {jax.process_count()} processes" if processes.are_many() else ""
    versions = {each.metadata["Name"].lower().replace("_", "-"): each.version for each in distributions()}
    chosen = [name for name in PACKAGES if name in versions]
    chosen += sorted(name for name in versions if name.startswith(PLUGINS))
    flags = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)]
    return {
        "devices": f"{count} x {device.device_kind} ({device.platform}){hosts}",
        "runtime": " ".join(device.client.platform_version.split()),
        "versions": f"Python {platform.python_version()}, " + ", ".join(f"{name} {versions[name]}" for name in chosen),
        "flags": " ".join(flags) or "none",
        "float32": 'products in float32: jax.default_matmul_precision("highest")',
    }
