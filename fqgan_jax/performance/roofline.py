"""The least time of a step on a chip (Williams et al. 2009), and how it grows with the number of chips."""

import dataclasses
from collections.abc import Sequence

from fqgan_jax.performance.chips import Chip
from fqgan_jax.performance.collectives import Collective


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds that each side of a chip needs at its peak; the largest bounds the step if all overlap.

    Attributes:
      compute: operations over peak rate.
      memory: bytes over bandwidth.
      interconnect: bytes sent over the links' rate.
      network: bytes sent to other hosts over the network's rate.
    """

    compute: float
    memory: float
    interconnect: float = 0.0
    network: float = 0.0

    @property
    def seconds(self) -> float:
        """Time of a step in which all of them overlap."""
        return max(dataclasses.astuple(self))

    @property
    def bound(self) -> str:
        """The side that takes longest."""
        sides = dataclasses.asdict(self)
        return max(sides, key=sides.__getitem__)


def roofline(chip: Chip, flops: float, num_bytes: float, collectives: Sequence[Collective] = ()) -> Roofline:
    """Returns the roofline of `flops` operations, `num_bytes` of memory traffic and collectives, all of one chip."""
    within, between = _sending(chip, collectives)
    return Roofline(flops / chip.flops, num_bytes / chip.bandwidth, interconnect=within, network=between)


def _sending(chip: Chip, collectives: Sequence[Collective]) -> tuple[float, float]:
    """Seconds of the interconnect and of the network."""
    within = sum(collective.sent_within for collective in collectives)
    between = sum(collective.sent_between for collective in collectives)
    return within / chip.interconnect, between / chip.network if chip.network else 0.0


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
    chip: Chip, here: Roofline, *, collectives: Sequence[Collective], chips: int, hosts: int, counts: Sequence[int]
) -> list[Scaled]:
    """Returns the weak scaling of one compiled program to other numbers of chips.

    The work per chip stays. Collectives over all chips run on larger rings, those over all hosts over more hosts.

    Args:
      chip: its peak figures.
      here: the roofline on `chips` chips.
      collectives: collectives of the program, per chip.
      chips: for which the program was compiled.
      hosts: for which the program was compiled.
      counts: numbers of chips to scale to.
    """
    busy = max(here.compute, here.memory)
    per_host = chips // hosts if hosts > 1 else chip.host

    def grown(each: Collective, count: int) -> Collective:
        num_hosts = -(-count // per_host) if per_host else 1
        if each.group >= chips:
            return each.regrouped(group=count, hosts=num_hosts)
        if each.hosts == hosts > 1:
            return each.regrouped(group=each.group // hosts * num_hosts, hosts=num_hosts)
        return each

    def scaled(count: int) -> Scaled:
        within, between = _sending(chip, [grown(each, count) for each in collectives] if count > 1 else [])
        return Scaled(chips=count, overlapped=max(busy, within, between), exposed=busy + within + between)

    return [scaled(count) for count in counts]
