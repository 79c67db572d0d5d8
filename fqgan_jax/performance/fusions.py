"""Bytes that fusions move: of what they slice the slices, of what they update in place the updates."""

from collections.abc import Sequence

from fqgan_jax.performance.hlo import Computation, Instruction, parameters_of, root_of

SLICES = ("dynamic-slice", "slice", "gather")
_IN_PLACE = ("dynamic-update-slice", "scatter")  # their first operand is read and written only where it is updated

# Instructions of which any part needs the same part of their operands, and no more.
_POINTWISE = frozenset(
    (
        *("bitcast", "copy", "reshape", "transpose", "convert", "bitcast-convert"),
        *("add", "subtract", "multiply", "divide", "remainder", "power"),
        *("maximum", "minimum", "clamp", "select", "compare"),
        *("and", "or", "xor", "not", "shift-left", "shift-right-logical", "shift-right-arithmetic", "is-finite"),
        *("negate", "abs", "sign", "floor", "ceil", "round-nearest-even", "sqrt", "rsqrt", "cbrt", "exponential"),
        *("exponential-minus-one", "log", "log-plus-one", "logistic", "tanh", "erf", "sine", "cosine", "atan2"),
    )
)


class Fusions:
    """Counts the bytes of the fusions of a program.

    Attributes:
      computations: of the program, by name.
    """

    def __init__(self, computations: dict[str, Computation]):
        self.computations = computations
        self._shares: dict[str, dict[str, float]] = {}

    def bytes(self, fusion: Instruction, operands: Sequence[Instruction]) -> float:
        """Returns the bytes that a fusion reads of its operands and writes to its results, outside of fast memory."""
        name = fusion.called("calls")
        inner, share = self.computations[name], self._share(name)
        parameters = parameters_of(inner)
        total = 0.0
        for number, operand in enumerate(operands):
            if operand.memory_bytes and number in parameters:
                parameter = parameters[number]
                total += min(operand.memory_bytes, share[parameter.name] * parameter.bytes)
        root = root_of(inner)
        if root.opcode != "tuple":
            return total + (self._written(inner, root) if fusion.memory_bytes else 0)
        results = [inner[name] for name in root.operands]
        if len(results) != len(fusion.results):
            return total + fusion.memory_bytes
        placed = zip(results, fusion.results, strict=True)
        return total + sum(self._written(inner, result) for result, (_, fast) in placed if not fast)

    def _share(self, name: str) -> dict[str, float]:
        """Share of each value of a fused computation that it needs, from 0 to 1."""
        if name not in self._shares:
            computation = self.computations[name]
            share = dict.fromkeys(computation, 0.0)
            share[root_of(computation).name] = 1.0
            for user in reversed(computation.values()):  # operands stand before their users
                for position, operand in enumerate(user.operands):
                    taken = self._taken(user, position, computation[operand], needed=share[user.name])
                    share[operand] = min(share[operand] + taken, 1.0)
            self._shares[name] = share
        return self._shares[name]

    def _taken(self, user: Instruction, position: int, operand: Instruction, *, needed: float) -> float:
        """Share of an operand that its user takes for the share of its result that is `needed`."""
        if not needed or (user.opcode in _IN_PLACE and position == 0):
            return 0.0
        if user.opcode in SLICES and position == 0:
            return needed * user.bytes / max(operand.bytes, 1)
        if user.opcode in _POINTWISE:
            return needed
        if user.opcode == "fusion":
            name = user.called("calls")
            return self._share(name)[parameters_of(self.computations[name])[position].name]
        return 1.0

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
