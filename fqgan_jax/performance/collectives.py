"""Collectives of a compiled program: which devices take part, and what each of them sends within and between hosts."""

import dataclasses
import re
from collections.abc import Sequence
from math import prod

import numpy as np
from jaxtyping import Int

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_AXIS = re.compile(r"'(\w+)'(?::\((\d+)\)(\d+))?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """Collectives of one kind among groups of one size.

    Attributes:
      kind: one of `KINDS`.
      group: number of devices that take part together.
      hosts: number of hosts that a group spans.
      count: number in a step.
      bytes: total size of their operands on one device.
    """

    kind: str
    group: int
    hosts: int = 1
    count: float
    bytes: float

    @property
    def sent_within(self) -> float:
        """Bytes that each device sends to others of its host; see `sent_between`."""
        if self.kind == "collective-permute":
            return self.bytes if self.hosts == 1 else 0.0
        return self._whole * (1 - self.hosts / self.group)

    @property
    def sent_between(self) -> float:
        """Bytes that each device sends to other hosts.

        Devices of a host first combine what they have in a ring; then each exchanges its share of that with the devices
        of the same rank on other hosts, also in a ring.
        """
        if self.kind == "collective-permute":
            return self.bytes if self.hosts > 1 else 0.0
        share = 1.0 if self.kind == "all-to-all" else self.hosts / self.group
        return self._whole * share * (1 - 1 / self.hosts)

    @property
    def _whole(self) -> float:
        """Bytes that a ring over all but one of n devices sends, times n/(n-1)."""
        return {"all-reduce": 2, "all-gather": self.group}.get(self.kind, 1) * self.bytes

    def regrouped(self, *, group: int, hosts: int) -> "Collective":
        """Returns the same collectives among groups of another size; the whole that is reduced or gathered stays."""
        num_bytes = self.bytes * self.group / group if self.kind == "all-gather" else self.bytes
        return dataclasses.replace(self, group=group, hosts=hosts, bytes=num_bytes)


def sizes_of_groups(attributes: str, hosts: Sequence[int]) -> tuple[int, int]:
    """Returns the number of devices of a collective's groups, and the largest number of hosts that one of them spans.

    Args:
      attributes: of the instruction.
      hosts: host of each device.
    """
    groups = _groups(attributes, len(hosts))
    spans = max(len({hosts[device] for device in group}) for group in groups)
    return (len(hosts) if "source_target_pairs" in attributes else len(groups[0])), spans


def _groups(attributes: str, devices: int) -> Sequence[Sequence[int]]:
    """Devices of each group; of a permutation, each source and its target."""
    if found := re.search(r"(?:replica_groups|source_target_pairs)=\{(\{.*?\})\}", attributes):
        return [[int(number) for number in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", found[1])]
    if found := re.search(r"replica_groups=\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", attributes):
        return _iota(found[2]).reshape(_numbers(found[1])).tolist()
    if found := re.search(r"replica_groups=\w*\[('[^\]]*)\](?:, device_ids=\((.*?)\))?\s*\{([^}]*)\}", attributes):
        return _groups_of_axes(*found.groups(), devices=devices).tolist()
    return [range(devices)]


def _groups_of_axes(mesh: str, device_ids: str | None, axes: str, *, devices: int) -> Int[np.ndarray, "groups members"]:
    """Groups along some axes of a mesh, as in `mesh['data'=4,'fsdp'=2] {'data'}`.

    Of an axis of 8, `'data':(2)4` is the part that is left if it is split into 2 x 4 and the 2 are fixed.
    """
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh)}
    chosen = {name: (int(major or 1), int(size or sizes[name])) for name, major, size in _AXIS.findall(axes)}
    ids = np.arange(devices) if not device_ids else _device_ids(device_ids).ravel()
    group, members = np.zeros(devices, int), 1
    for (name, size), at in zip(sizes.items(), np.unravel_index(np.arange(devices), [*sizes.values()]), strict=True):
        major, part = chosen.get(name, (1, 1))
        minor = size // (major * part)
        group = group * (size // part) + at // (minor * part) * minor + at % minor
        members *= part
    return ids[np.argsort(group, kind="stable")].reshape(-1, members)


def _device_ids(text: str) -> Int[np.ndarray, "..."]:
    return _iota(text) if text.startswith("[") else np.array(_numbers(text))


def _iota(text: str) -> Int[np.ndarray, "..."]:
    """Numbers from 0, in the order of `[2,4]T(1,0)`: shaped, then transposed."""
    shape, _, order = text.partition("T")
    numbers = np.arange(prod(_numbers(shape))).reshape(_numbers(shape))
    return numbers.transpose(_numbers(order)) if order else numbers


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))
