"""Traffic of a compiled program, from its instructions: bytes to and from memory, and collectives.

XLA's `cost_analysis` counts the body of a loop once; here loops count as often as they run. It is an estimate: every
instruction reads its operands from memory and writes its results there, unless they are in a chip's fast memory.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence

from fqgan_jax.performance.collectives import KINDS, Collective, sizes_of_groups
from fqgan_jax.performance.hlo import Computation, Instruction, parameters_of, parse, root_of

_NO_TRAFFIC = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"),
    *("while", "conditional", "call", "async-start"),  # the instructions that they run are counted on their own
)
_NO_CODE = ("AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound")  # custom calls that move nothing
_SLICES = ("dynamic-slice", "slice", "gather")
_IN_PLACE = ("dynamic-update-slice", "scatter")  # their first operand is read and written only where it is updated


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
        if opcode in _SLICES:
            return instruction.memory_bytes + (instruction.bytes if operands[0].memory_bytes else 0)
        if opcode == "dynamic-update-slice":
            return operands[1].memory_bytes + (operands[1].bytes if instruction.memory_bytes else 0)
        if opcode == "fusion":
            return self._fusion_bytes(instruction, operands)
        return instruction.memory_bytes + sum(operand.memory_bytes for operand in operands)

    def _fusion_bytes(self, fusion: Instruction, operands: list[Instruction]) -> float:
        """A fusion reads and writes only the slices that it takes of its operands and puts into its results."""
        inner = self.computations[fusion.called("calls")]
        parameters = parameters_of(inner)
        total = 0.0
        for number, operand in enumerate(operands):
            if operand.memory_bytes and number in parameters:
                total += min(operand.memory_bytes, self._read(inner, parameters[number]))
        root = root_of(inner)
        if root.opcode != "tuple":
            return total + (self._written(inner, root) if fusion.memory_bytes else 0)
        results = [inner[name] for name in root.operands]
        if len(results) != len(fusion.results):
            return total + fusion.memory_bytes
        return total + sum(
            self._written(inner, result) for result, (_, fast) in zip(results, fusion.results, strict=True) if not fast
        )

    def _read(self, computation: Computation, value: Instruction) -> float:
        """Bytes of a value that a fused computation reads."""
        total = 0.0
        for user in computation.values():
            if value.name not in user.operands:
                continue
            if user.opcode in _SLICES and user.operands[0] == value.name:
                total += user.bytes
            elif user.opcode == "bitcast":
                total += self._read(computation, user)
            elif user.opcode == "fusion":
                inner = self.computations[user.called("calls")]
                number = user.operands.index(value.name)
                total += self._read(inner, parameters_of(inner)[number])
            elif not (user.opcode in _IN_PLACE and user.operands[0] == value.name):
                return value.bytes
        return min(total, value.bytes)

    def _written(self, computation: Computation, result: Instruction) -> float:
        """Bytes of a fused computation's result that it writes: of an array updated in place, the update."""
        if result.opcode == "bitcast":
            return self._written(computation, computation[result.operands[0]])
        if result.opcode == "fusion":
            inner = self.computations[result.called("calls")]
            return self._written(inner, root_of(inner))
        if result.opcode == "get-tuple-element":
            source = computation[result.operands[0]]
            scratch = source.scratch is not None and f"index={source.scratch}" in result.attributes
            return 0 if scratch else result.bytes
        if result.opcode == "dynamic-update-slice":
            return computation[result.operands[1]].bytes
        if result.opcode == "scatter":  # reads what it updates, too
            return min(2 * computation[result.operands[2]].bytes, 2 * result.bytes)
        return result.bytes


def _together(a: Mover, b: Mover) -> Mover:
    instructions = tuple(sorted({*a.instructions, *b.instructions}))
    return Mover(name=a.name, instructions=instructions, count=a.count + b.count, bytes=a.bytes + b.bytes)
