"""What a value may be: types, ranges and choices, and the sentence for a value that is something else.

Config fields, fields of saved models and manifests are checked by these rules, before anything is built from them.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fqgan_jax.errors import UserError

LARGEST_WHOLE = 2**31 - 1


class Rule:
    """What a value may be; `str(rule)` completes the sentence "give ..."."""

    def allows(self, value: Any) -> bool:
        """Returns whether the value is right."""
        raise NotImplementedError

    def check(self, name: str, value: Any) -> None:
        """Raises `UserError` unless the value of this name is right."""
        if not self.allows(value):
            raise UserError(f"{name} is {shortened(value)}: give {self}.")


@dataclasses.dataclass(frozen=True)
class Whole(Rule):
    """A whole number in a range, both ends included."""

    low: int = 0
    high: int = LARGEST_WHOLE

    def allows(self, value: Any) -> bool:
        """Refuses booleans and floats too."""
        is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        return is_whole and bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        if self.high == LARGEST_WHOLE:
            return f"a whole number of at least {self.low}"
        if self.low == self.high:
            return str(self.low)
        return f"a whole number from {self.low} to {self.high}"


@dataclasses.dataclass(frozen=True)
class Number(Rule):
    """A finite number in a range.

    Attributes:
      low, high: the range's ends.
      above: whether `low` itself is refused.
      below: whether `high` itself is refused.
    """

    low: float = 0.0
    high: float = math.inf
    _: dataclasses.KW_ONLY
    above: bool = False
    below: bool = False

    def allows(self, value: Any) -> bool:
        """Refuses booleans, NaN and infinity too."""
        is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            return False
        low = value > self.low if self.above else value >= self.low
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.above else f"of at least {self.low:g}"
        if math.isinf(self.high):
            return f"a number {low}"
        return f"a number {low} and {'below' if self.below else 'at most'} {self.high:g}"


@dataclasses.dataclass(frozen=True)
class Flag(Rule):
    """True or false."""

    def allows(self, value: Any) -> bool:
        """Refuses numbers too."""
        return isinstance(value, bool)

    def __str__(self) -> str:
        return "True or False"


@dataclasses.dataclass(frozen=True)
class Text(Rule):
    """A text without line breaks and NULs; `empty` says whether it may be empty."""

    empty: bool = True

    def allows(self, value: Any) -> bool:
        """Refuses everything but text."""
        return isinstance(value, str) and bool(value or self.empty) and not set(value) & set("\n\r\0")

    def __str__(self) -> str:
        return "a text in one line" if self.empty else "a text in one line that is not empty"


@dataclasses.dataclass(frozen=True)
class FileName(Rule):
    """The name of a file, without folders."""

    def allows(self, value: Any) -> bool:
        """Refuses paths."""
        return Text(empty=False).allows(value) and value not in (".", "..") and not set(value) & set("/\\")

    def __str__(self) -> str:
        return "the name of a file"


@dataclasses.dataclass(frozen=True)
class Choice(Rule):
    """One of some texts."""

    choices: tuple[str, ...]

    def allows(self, value: Any) -> bool:
        """Refuses other texts."""
        return isinstance(value, str) and value in self.choices

    def __str__(self) -> str:
        return f"one of {', '.join(self.choices)}"


@dataclasses.dataclass(frozen=True)
class Many(Rule):
    """Several values, each by the same rule.

    Attributes:
      each: the rule of each.
      lengths: numbers of values that are allowed; None: any.
    """

    each: Rule
    lengths: tuple[int, ...] | None = None

    def allows(self, value: Any) -> bool:
        """Takes tuples and lists."""
        if not isinstance(value, tuple | list):
            return False
        return (self.lengths is None or len(value) in self.lengths) and all(map(self.each.allows, value))

    def __str__(self) -> str:
        if self.lengths is None:
            return f"a tuple, each {self.each}"
        few = len(self.lengths) <= 2
        lengths = " or ".join(map(str, self.lengths)) if few else f"{self.lengths[0]} to {self.lengths[-1]}"
        return f"a tuple, {lengths} of them, each {self.each}"


@dataclasses.dataclass(frozen=True)
class Either(Rule):
    """What one of several rules allows."""

    rules: tuple[Rule, ...]

    def allows(self, value: Any) -> bool:
        """Asks the rules in turn."""
        return any(rule.allows(value) for rule in self.rules)

    def __str__(self) -> str:
        return ", or ".join(map(str, self.rules))


@dataclasses.dataclass(frozen=True)
class Nothing(Rule):
    """None."""

    def allows(self, value: Any) -> bool:
        """Refuses everything but None."""
        return value is None

    def __str__(self) -> str:
        return "None"


@dataclasses.dataclass(frozen=True)
class Fields(Rule):
    """Values by name."""

    def allows(self, value: Any) -> bool:
        """Takes mappings whose keys are texts."""
        return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)

    def __str__(self) -> str:
        return "values by name"


@dataclasses.dataclass(frozen=True)
class Field:
    """A config field as `config.defaults` declares it.

    Attributes:
      default: its value, unless a config says otherwise.
      rule: what else it may be.
    """

    default: Any
    rule: Rule


def check_fields(values: Mapping[str, Any], rules: Mapping[str, Rule], *, where: str = "") -> None:
    """Raises `UserError` if a value breaks the rule of its name; names without a rule are left to others.

    Args:
      values: by name.
      rules: by name.
      where: what holds the values, for the message: "runs/x/model.json: ".
    """
    for name, value in values.items():
        if name in rules:
            rules[name].check(f"{where}{name}", value)


def check_complete(content: object, rules: Mapping[str, Rule], *, where: str, remedy: str) -> None:
    """Raises `UserError` unless this holds every value that has a rule, and each is right.

    Args:
      content: values by name, as a file holds them.
      rules: by name.
      where: the file, for the message: "codes.json: ".
      remedy: what to do if a value is missing: "write it again".
    """
    values = content if isinstance(content, Mapping) else {}
    if missing := sorted(rules.keys() - values.keys()):
        raise UserError(f"{where}it lacks {', '.join(missing)}: {remedy}.")
    check_fields(values, rules, where=where)


def shortened(value: Any, *, longest: int = 60) -> str:
    """Returns a value as a message shows it."""
    text = repr(value)
    return text if len(text) <= longest else f"{text[:longest]}…"


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values of nested mappings by their paths, with dots between."""
    values: dict[str, Any] = {}
    for name, value in config.items():
        values |= flat(value, f"{prefix}{name}.") if hasattr(value, "items") else {f"{prefix}{name}": value}
    return values


def with_tuples(value: Any) -> Any:
    """Returns the value with tuples for lists: JSON has lists only, configs and modules tuples only."""
    if isinstance(value, dict):
        return {name: with_tuples(item) for name, item in value.items()}
    return tuple(map(with_tuples, value)) if isinstance(value, list) else value


SIZE = Either((Whole(1, 2**16), Many(Whole(1, 2**16), (2,))))  # of images: a side, or (height, width)
DTYPE = Choice(("float32", "bfloat16"))


def whole(default: int, low: int, high: int = LARGEST_WHOLE) -> Field:
    """Declares a whole number in a range."""
    return Field(default, Whole(low, high))


def count(default: int) -> Field:
    """Declares a whole number of at least 0."""
    return Field(default, Whole())


def positive(default: int) -> Field:
    """Declares a whole number of at least 1."""
    return Field(default, Whole(1))


def number(default: float, low: float = 0.0, high: float = math.inf, *, above: bool = False) -> Field:
    """Declares a number in a range."""
    return Field(default, Number(low, high, above=above))


def weight(default: float) -> Field:
    """Declares a number of at least 0."""
    return Field(default, Number())


def share(default: float) -> Field:
    """Declares a number between 0 and 1, both included."""
    return Field(default, Number(0, 1))


def fraction(default: float) -> Field:
    """Declares a number from 0 to below 1."""
    return Field(default, Number(0, 1, below=True))


def flag(default: bool) -> Field:  # noqa: FBT001  (it is the value)
    """Declares True or False."""
    return Field(default, Flag())


def text(default: str) -> Field:
    """Declares a text."""
    return Field(default, Text())
