"""Traffic of a compiled program, from its instructions: bytes to and from memory, and collectives.

XLA's `cost_analysis` counts the body of a loop once; here loops count as often as they run. It is an estimate: every
instruction reads its operands from memory and writes its results there, unless they are in a chip's fast memory.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence

from fqgan_jax.performance.collectives import KINDS, Collective, sizes_of_groups
from fqgan_jax.performance.fusions import SLICES, Fusions
from fqgan_jax.performance.hlo import Computation, Instruction, parse

_NO_TRAFFIC = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"),
    *("while", "conditional", "call", "async-start"),  # the instructions that they run are counted on their own
)
_NO_CODE = ("AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound")  # custom calls that move nothing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mover:
    """The instructions of one operation.

    Attributes:
      name: of the operation in the traced function; if the compiler made them, what they make.
      instructions: what they are: opcodes, and names of library calls.
      count: how often they run.
      bytes: that they move.
    """

    name: str
    instructions: tuple[str, ...]
    count: float
    bytes: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traffic:
    """Traffic of a device in a step.

    Attributes:
      bytes: read from memory and written to it.
      collectives: by kind, size of the groups and number of hosts that they span.
      unknown_loops: number of loops whose length the program does not tell; they count once.
      movers: the bytes by operation, the largest first.
    """

    bytes: float
    collectives: tuple[Collective, ...]
    unknown_loops: int
    movers: tuple[Mover, ...] = ()

    def times(self, devices: int) -> "Traffic":
        """Returns the traffic of several devices together."""

        def times(each):
            return dataclasses.replace(each, count=each.count * devices, bytes=each.bytes * devices)

        return dataclasses.replace(
            self,
            bytes=self.bytes * devices,
            collectives=tuple(map(times, self.collectives)),
            movers=tuple(map(times, self.movers)),
        )


def read_traffic(text: str, hosts: Sequence[int]) -> Traffic:
    """Returns the traffic of a program.

    Args:
      text: from `compiled.as_text()`.
      hosts: number of the host of each device.
    """
    return _Reader(text, hosts).traffic()


class _Reader:
    """Sums up the traffic of one program."""

    def __init__(self, text: str, hosts: Sequence[int]):
        self.hosts = hosts
        self.computations, self.entry = parse(text)
        self.fusions = Fusions(self.computations)
        self.unknown_loops = 0

    def traffic(self) -> Traffic:
        sums: dict[tuple[str, int, int], list[float]] = {}
        movers: dict[str, Mover] = {}
        for instruction, computation, times in self._executed(self.entry, 1):
            kind = instruction.opcode.removesuffix("-start")
            if kind in KINDS:
                key = (kind, *sizes_of_groups(instruction.attributes, self.hosts))
                counted = sums.setdefault(key, [0.0, 0.0])
                counted[0] += times
                counted[1] += times * sum(computation[name].bytes for name in instruction.operands)
            if moved := self._bytes(instruction, computation):
                mover = self._mover(instruction, count=times, num_bytes=times * moved)
                movers[mover.name] = _together(movers[mover.name], mover) if mover.name in movers else mover
        collectives = tuple(
            Collective(kind=kind, group=group, hosts=hosts, count=count, bytes=num_bytes)
            for (kind, group, hosts), (count, num_bytes) in sorted(sums.items())
        )
        return Traffic(
            bytes=sum(mover.bytes for mover in movers.values()),
            collectives=collectives,
            unknown_loops=self.unknown_loops,
            movers=tuple(sorted(movers.values(), key=lambda mover: -mover.bytes)),
        )

    def _mover(self, instruction: Instruction, *, count: float, num_bytes: float) -> Mover:
        what, name = instruction.target or instruction.opcode, instruction.op_name
        if not name and instruction.opcode == "fusion":
            inner = self.computations[instruction.called("calls")].values()
            name = next((each.op_name for each in reversed(inner) if each.op_name), "")
        name = name or re.sub(r"\{[^{}]*\}", "", f"{what} to {instruction.type}")
        return Mover(name=name, instructions=(what,), count=count, bytes=num_bytes)

    def _executed(self, name: str, times: float) -> Iterator[tuple[Instruction, Computation, float]]:
        """Yields every instruction that runs on its own, its computation and how often; collectives in fusions too."""
        computation = self.computations[name]
        for instruction in computation.values():
            yield instruction, computation, times
            if instruction.opcode == "while":
                length = self._length(instruction)
                if length is None:
                    self.unknown_loops += 1
                yield from self._executed(instruction.called("body"), times * (length or 1))
            elif instruction.opcode == "conditional":
                # One branch runs; those of training steps are alike, so the first one is counted.
                branches = re.search(r"branch_computations=\{%?([\w.\-]+)", instruction.attributes)
                branch = branches[1] if branches else instruction.called("true_computation")
                yield from self._executed(branch, times)
            elif instruction.opcode == "call":
                yield from self._executed(instruction.called("to_apply"), times)
            elif instruction.opcode == "async-start":
                yield from self._executed(instruction.called("calls"), times)
            elif instruction.opcode == "fusion":
                inner = self.computations[instruction.called("calls")]
                yield from ((i, inner, times) for i in inner.values() if i.opcode in KINDS)

    def _length(self, loop: Instruction) -> int | None:
        """Number of rounds of a loop: as the compiler wrote it, or the constant that its counter is compared with."""
        known = re.search(r'known_trip_count"?:\{"n":"(\d+)"', loop.attributes)
        if known:
            return int(known[1])
        condition = self.computations[loop.called("condition")]
        limits = [
            re.search(r"constant\((\d+)\)", f"constant({i.attributes}")
            for i in condition.values()
            if i.opcode == "constant"
        ]
        compares = any("direction=LT" in i.attributes or "compare" in i.name for i in condition.values())
        return int(limits[0][1]) if len(limits) == 1 and limits[0] and compares else None

    def _bytes(self, instruction: Instruction, computation: Computation) -> float:
        opcode = instruction.opcode
        if opcode in _NO_TRAFFIC or opcode.endswith("-done"):
            return 0
        if opcode == "custom-call" and instruction.target in _NO_CODE:
            return 0
        if opcode.endswith("slice-start"):  # its result is ((source), destination, context)
            size, fast = instruction.results[1]
            return size if fast else 2 * size
        if opcode.endswith("-start") and opcode != "all-reduce-start":  # operands and results, in a tuple
            return instruction.memory_bytes
        operands = [computation[name] for name in instruction.operands if name in computation]
        if opcode in SLICES:
            return instruction.memory_bytes + (instruction.bytes if operands[0].memory_bytes else 0)
        if opcode == "dynamic-update-slice":
            return operands[1].memory_bytes + (operands[1].bytes if instruction.memory_bytes else 0)
        if opcode == "fusion":
            return self.fusions.bytes(instruction, operands)
        return instruction.memory_bytes + sum(operand.memory_bytes for operand in operands)


def _together(a: Mover, b: Mover) -> Mover:
    instructions = tuple(sorted({*a.instructions, *b.instructions}))
    return Mover(name=a.name, instructions=instructions, count=a.count + b.count, bytes=a.bytes + b.bytes)
