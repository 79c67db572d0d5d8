"""The least time of a step on a chip (Williams et al. 2009), and how it grows with the number of chips."""

import dataclasses
from collections.abc import Sequence

from fqgan_jax.performance.chips import Chip
from fqgan_jax.performance.traffic import Collective


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds that each side of a chip needs at its peak; the largest bounds the step if all overlap.

    Attributes:
      compute: operations over peak rate.
      memory: bytes over bandwidth.
      interconnect: bytes sent over the links' rate.
    """

    compute: float
    memory: float
    interconnect: float = 0.0

    @property
    def seconds(self) -> float:
        """Time of a step in which all three overlap."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def bound(self) -> str:
        """The side that takes longest."""
        sides = dataclasses.asdict(self)
        return max(sides, key=sides.get)


def roofline(chip: Chip, flops: float, num_bytes: float, collectives: Sequence[Collective] = ()) -> Roofline:
    """Returns the roofline of `flops` operations, `num_bytes` of memory traffic and collectives, all of one chip."""
    sent = sum(collective.sent() for collective in collectives)
    return Roofline(flops / chip.flops, num_bytes / chip.bandwidth, sent / chip.interconnect)


@dataclasses.dataclass(frozen=True)
class Scaled:
    """A step on another number of chips with the same batch on each.

    Attributes:
      chips: their number.
      overlapped: seconds if collectives run beside the computation.
      exposed: seconds if they wait for it.
    """

    chips: int
    overlapped: float
    exposed: float


def scaling(
    chip: Chip, here: Roofline, *, collectives: Sequence[Collective], chips: int, counts: Sequence[int]
) -> list[Scaled]:
    """Returns the weak scaling of one compiled program to other numbers of chips.

    The work per chip stays; collectives over all chips run on larger rings.

    Args:
      chip: its peak figures.
      here: the roofline on `chips` chips.
      collectives: collectives of the program, per chip.
      chips: for which the program was compiled.
      counts: numbers of chips to scale to.
    """
    busy = max(here.compute, here.memory)

    def scaled(count: int) -> Scaled:
        sent = sum(c.sent(count if c.group >= chips else None) if count > 1 else 0.0 for c in collectives)
        seconds = sent / chip.interconnect
        return Scaled(chips=count, overlapped=max(busy, seconds), exposed=busy + seconds)

    return [scaled(count) for count in counts]
