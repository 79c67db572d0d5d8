"""The table of what `fqgan check` runs. A part is a function with a name and a bound, in one of the files beside this.

    @parts("decode", bound=ROUNDING, stored=True)
    def decode(subjects): ...

It returns numbers by name, which are compared with the stored ones (`stored=True`), or what was computed and what was
expected. The largest deviation (`numbers.deviation`) must not exceed the bound.
"""

import dataclasses
from collections.abc import Callable

from fqgan_jax.check.numbers import Numbers
from fqgan_jax.check.subjects import Subjects
from fqgan_jax.config import Registry

# Bounds in float32, whatever the order of summation. TF32 exceeds both.
ROUNDING = 1e-4
GRADIENT_ROUNDING = 1e-3
# Bound in bfloat16, whose numbers have eight bits.
BFLOAT16_ROUNDING = 5e-2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One row.

    Attributes:
      function: of `Subjects`; returns numbers, or what was computed and what was expected.
      bound: of the relative deviation.
      stored: whether the numbers are compared with stored ones.
    """

    function: Callable[[Subjects], Numbers | tuple[Numbers, Numbers]]
    bound: float
    stored: bool = False


class NotHereError(Exception):
    """A part does not apply to these devices; the message says why."""


def _row(function: Callable, **attributes) -> Part:
    return Part(function=function, **attributes)


parts: Registry[Part] = Registry("part of fqgan check", _row)
