"""How a code is drawn from logits: guidance and its schedules, temperature, top-k, top-p and min-p."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from fqgan_jax.config.registry import Registry
from fqgan_jax.errors import check

T = TypeVar("T")


@flax.struct.dataclass(kw_only=True)
class SamplingOptions:
    """How codes are drawn, one value per sub-codebook.

    Attributes:
      guidance: scale s of u + s (c - u); None without guidance, which halves the work.
      temperature: logits are divided by it; 0 takes the most probable code.
      top_k: only the k most probable codes; 0 or None: all.
      top_p: only the most probable codes that together reach this probability; 1 or None: all.
      min_p: only codes at least this share as probable as the most probable one; 0 or None: all.
      schedules: how the guidance of each sub-codebook changes along the positions; None: not at all.
    """

    guidance: Float[Array, " K"] | None
    temperature: Float[Array, " K"]
    top_k: Int[Array, " K"] | None = None
    top_p: Float[Array, " K"] | None = None
    min_p: Float[Array, " K"] | None = None
    schedules: "tuple[GuidanceSchedule | None, ...] | None" = None

    def scale(self, k: int, t: Int[Array, ""], num_positions: int) -> Float[Array, ""]:
        """Returns the scale of guidance of sub-codebook k at position t."""
        assert self.guidance is not None
        scale = self.guidance[k]
        schedule = None if self.schedules is None else self.schedules[k]
        if schedule is None:
            return scale
        return 1 + (scale - 1) * schedule.share(t / num_positions)


def sampling_options(
    num_codebooks: int,
    *,
    guidance: float | Sequence[float] = 2.0,
    temperature: float | Sequence[float] = 1.0,
    top_k: int | Sequence[int] = 0,
    top_p: float | Sequence[float] = 1.0,
    min_p: float | Sequence[float] = 0.0,
    guidance_schedule: str | Sequence[str] = "constant",
) -> SamplingOptions:
    """Builds options from one value for all sub-codebooks, or one value each.

    Args:
      num_codebooks: K.
      guidance: see `SamplingOptions`, as for the next four.
      temperature: 0 takes the most probable code.
      top_k: 0 for all codes.
      top_p: 1 for all codes.
      min_p: 0 for all codes.
      guidance_schedule: "constant", "power_cosine:P" or "interval:START-STOP"; see `guidance_schedules`.

    Raises:
      UserError: the wrong number of values, one outside its range, or no such schedule.
    """
    scales = _one_each(num_codebooks, "guidance", guidance)
    temperatures = _one_each(num_codebooks, "temperature", temperature)
    counts = _one_each(num_codebooks, "top_k", top_k, largest=2**31 - 1, kinds="iu")
    masses = _one_each(num_codebooks, "top_p", top_p, largest=1)
    shares = _one_each(num_codebooks, "min_p", min_p, largest=1)
    texts = [guidance_schedule] if isinstance(guidance_schedule, str) else guidance_schedule
    schedules = [parse_schedule(text) for text in _spread(num_codebooks, "guidance_schedule", texts)]
    # Options without effect are left out of the compiled program.
    return SamplingOptions(
        guidance=None if all(scale == 1 for scale in scales) else jnp.array(scales, jnp.float32),
        temperature=jnp.array(temperatures, jnp.float32),
        top_k=None if all(count == 0 for count in counts) else jnp.array(counts, jnp.int32),
        top_p=None if all(mass == 1 for mass in masses) else jnp.array(masses, jnp.float32),
        min_p=None if all(share == 0 for share in shares) else jnp.array(shares, jnp.float32),
        schedules=tuple(schedules) if any(schedules) else None,
    )


def _one_each(
    num_codebooks: int, name: str, value: float | Sequence[float], *, largest: float = math.inf, kinds: str = "iuf"
) -> Sequence[float]:
    """Returns a number for each sub-codebook, checked; `kinds` are NumPy's kinds of types that are allowed."""
    array = np.asarray(value)
    check(
        array.ndim <= 1 and array.dtype.kind in kinds,
        f"{name} is {value}: give a {'number' if 'f' in kinds else 'whole number'}, or one for each sub-codebook.",
    )
    values = _spread(num_codebooks, name, array.reshape(-1).tolist())
    range_ = "of at least 0" if math.isinf(largest) else f"between 0 and {largest}"
    check(
        all(0 <= each <= largest and math.isfinite(each) for each in values),
        f"{name} is {value}: give a number {range_}.",
    )
    return values


def _spread(num_codebooks: int, name: str, values: Sequence[T]) -> Sequence[T]:
    """Returns a value for each sub-codebook, given one for all or one each."""
    check(
        len(values) in (1, num_codebooks),
        f"{name} has {len(values)} values for {num_codebooks} sub-codebooks: give one, or one each.",
    )
    return list(values) * num_codebooks if len(values) == 1 else values


@flax.struct.dataclass(kw_only=True)
class GuidanceSchedule:
    """How guidance changes along the positions.

    Attributes:
      row: name of its row in `guidance_schedules`.
      values: the row's values.
    """

    row: str = flax.struct.field(pytree_node=False)
    values: tuple[Float[Array, ""], ...]

    def share(self, x: Float[Array, ""]) -> Float[Array, ""]:
        """Returns the share of the guidance, s - 1, after a share x of the positions."""
        return guidance_schedules[self.row](x, *self.values)


# A row is a function of x in [0, 1) and of the numbers behind its name, which returns the share of the guidance.
guidance_schedules: Registry[Callable[..., Float[Array, ""]]] = Registry("guidance schedule")


@guidance_schedules("power_cosine")
def power_cosine(x: Float[Array, ""], power: Float[Array, ""]) -> Float[Array, ""]:
    """Rises from 0 to 1, the later the larger the power (Yu et al. 2024, arXiv 2411.00776)."""
    return (1 - jnp.cos(jnp.pi * x**power)) / 2


@guidance_schedules("interval")
def interval(x: Float[Array, ""], start: Float[Array, ""], stop: Float[Array, ""]) -> Float[Array, ""]:
    """Is 1 between two shares of the positions, and 0 outside (Kynkäänniemi et al. 2024, arXiv 2404.07724)."""
    return jnp.where((x >= start) & (x < stop), 1.0, 0.0)


def parse_schedule(text: str) -> GuidanceSchedule | None:
    """Returns the schedule that a text names, "power_cosine:2.75" or "interval:0.2-0.8"; None for "constant".

    Raises:
      UserError: no such schedule, or other values than it takes.
    """
    if text == "constant":
        return None
    row, _, given = text.partition(":")
    guidance_schedules.check(row, "The guidance schedule")
    names = list(inspect.signature(guidance_schedules[row]).parameters)[1:]
    try:
        values = [float(value) for value in given.split("-")]
    except ValueError:
        values = []
    check(
        len(values) == len(names) and all(map(math.isfinite, values)),
        f"The guidance schedule {text!r} needs {len(names)} number(s): write {row}:{'-'.join(names).upper()}.",
    )
    return GuidanceSchedule(row=row, values=tuple(jnp.float32(value) for value in values))


def keep_top_k(logits: Float[Array, "B N"], top_k: Int[Array, ""]) -> Float[Array, "B N"]:
    """Sets all but the `top_k` largest logits to -inf (ties with the last one stay; 0 keeps all)."""
    ranked = jnp.sort(logits, axis=-1, descending=True)
    smallest = ranked[:, jnp.where(top_k == 0, logits.shape[-1], top_k).clip(1, logits.shape[-1]) - 1]
    return jnp.where(logits < smallest[:, None], -jnp.inf, logits)


def keep_top_p(logits: Float[Array, "B N"], top_p: Float[Array, ""]) -> Float[Array, "B N"]:
    """Keeps the most probable codes until they reach `top_p`, always at least one (Holtzman et al. 2020)."""
    ranked = jnp.sort(logits, axis=-1, descending=True)
    probability = jax.nn.softmax(ranked)
    before = jnp.cumsum(probability, axis=-1) - probability
    smallest = jnp.min(jnp.where((before < top_p) | (before == 0), ranked, jnp.inf), axis=-1)
    return jnp.where(logits < smallest[:, None], -jnp.inf, logits)


def keep_min_p(logits: Float[Array, "B N"], min_p: Float[Array, ""]) -> Float[Array, "B N"]:
    """Keeps codes at least `min_p` times as probable as the most probable one (Nguyen et al. 2024)."""
    least = jnp.max(logits, axis=-1, keepdims=True) + jnp.log(min_p)
    return jnp.where(logits < least, -jnp.inf, logits)


def draw_codes(
    keys: Key[Array, " B"], logits: Float[Array, "B N"], *, options: SamplingOptions, k: int
) -> Int[Array, " B"]:
    """Draws one code of sub-codebook k per row, each row with its own key."""
    temperature = options.temperature[k]
    scaled = logits / jnp.where(temperature == 0, 1, temperature)
    if options.top_k is not None:
        scaled = keep_top_k(scaled, options.top_k[k])
    if options.top_p is not None:
        scaled = keep_top_p(scaled, options.top_p[k])
    if options.min_p is not None:
        scaled = keep_min_p(scaled, options.min_p[k])
    drawn = jax.vmap(jax.random.categorical)(keys, scaled)
    return jnp.where(temperature == 0, jnp.argmax(logits, axis=-1), drawn)
