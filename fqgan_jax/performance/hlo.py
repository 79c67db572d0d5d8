"""Compiled programs as XLA prints them (HLO): computations, and their instructions with types and operands."""

import dataclasses
import re
from collections.abc import Iterator
from functools import cached_property
from math import prod

_ARRAY = re.compile(r"\b(pred|bf16|token|[a-z]\w*?(\d+)\w*)\[([\d,]*)\](\{[^{}]*\})?")
_SCRATCH = re.compile(r"[su]8\[\d+\](\{[^{}]*\})?\)$")  # the last of several results


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: unique in its computation.
      type: of its result.
      opcode: such as "fusion".
      operands: names of the instructions whose results it takes.
      attributes: the rest of the line; of a parameter or a constant, its number or value too.
      root: whether its result is that of the computation.
    """

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @cached_property
    def results(self) -> tuple[tuple[float, bool], ...]:
        """Bytes of each array of its result, and whether it is in fast memory."""
        return tuple(arrays(self.type))

    @cached_property
    def scratch(self) -> int | None:
        """Index of the result that is scratch space, if it is a call of a library (cuBLAS, cuDNN) that takes some."""
        library = self.opcode == "custom-call" and self.target.startswith("__cu")
        return len(self.results) - 1 if library and _SCRATCH.search(self.type) else None

    @cached_property
    def bytes(self) -> float:
        """Bytes of its results."""
        return sum(size for index, (size, _) in enumerate(self.results) if index != self.scratch)

    @cached_property
    def memory_bytes(self) -> float:
        """Bytes of the results that are not in a chip's fast memory."""
        return sum(size for index, (size, fast) in enumerate(self.results) if not fast and index != self.scratch)

    @property
    def target(self) -> str:
        """What a custom call calls."""
        return self._attribute(r'custom_call_target="([^"]*)"')

    @property
    def op_name(self) -> str:
        """Name of the operation in the traced function, "" if the compiler made the instruction."""
        return self._attribute(r'op_name="([^"]*)"').replace("\\'", "'")

    def _attribute(self, pattern: str) -> str:
        found = re.search(pattern, self.attributes)
        return found[1] if found else ""

    def called(self, attribute: str) -> str:
        """Name of the computation that an attribute names."""
        return self._attribute(rf"\b{attribute}=%?([\w.\-]+)")


Computation = dict[str, Instruction]


def root_of(computation: Computation) -> Instruction:
    """The instruction whose result is that of the computation."""
    return next(instruction for instruction in computation.values() if instruction.root)


def parameters_of(computation: Computation) -> dict[int, Instruction]:
    """Parameters by their number."""
    parameters = [instruction for instruction in computation.values() if instruction.opcode == "parameter"]
    return {int(parameter.attributes.split(")")[0]): parameter for parameter in parameters}


def arrays(text: str) -> Iterator[tuple[float, bool]]:
    """Yields the bytes of each array in a type, and whether it is in fast memory (a layout's `S(n)`)."""
    for kind, bits, shape, layout in _ARRAY.findall(text):
        width = 0 if kind == "token" else 1 if kind == "pred" else int(bits or 16) / 8
        yield width * prod(map(int, filter(None, shape.split(",")))), "S(" in layout


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """Computations by name, and the name of the one that the program starts with."""
    computations: dict[str, Computation] = {}
    entry, current = "", {}
    for line in text.splitlines():
        if line and not line[0].isspace() and line.rstrip().endswith("{"):
            head = re.match(r"(ENTRY )?%?([\w.\-]+) ", line)
            if head:
                current = computations[head[2]] = {}
                entry = head[2] if head[1] else entry
        elif found := re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line):
            instruction = _instruction(line[found.end() :], found[2], root=bool(found[1]))
            current[instruction.name] = instruction
    return computations, entry


def _instruction(text: str, name: str, *, root: bool) -> Instruction:
    """Parses `TYPE OPCODE(OPERANDS), ATTRIBUTES`."""
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    opening = text.index("(", end)
    closing = _closing(text, opening)
    opcode, inside, attributes = text[end:opening].strip(), text[opening + 1 : closing], text[closing + 1 :]
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    if opcode in ("parameter", "constant"):
        attributes = f"{inside}){attributes}"
    return Instruction(name=name, type=text[:end], opcode=opcode, operands=operands, attributes=attributes, root=root)


def _closing(text: str, opening: int) -> int:
    """Index at which the parenthesis at `opening` closes."""
    depth = 0
    for found in re.finditer(r"[()]", text[opening:]):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return opening + found.start()
    raise ValueError(f"no closing parenthesis in {text[:80]!r}")
