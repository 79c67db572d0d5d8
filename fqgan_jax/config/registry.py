"""Tables of rows: what a config or a command chooses from by name, and where a user's own variant is added."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from fqgan_jax.errors import UserError

Row = TypeVar("Row")


class Registry(Mapping[str, Row], Generic[Row]):
    """Rows of one kind by name, in the order in which they were added.

    Calling the registry with a name gives a decorator that adds a row:

        @losses.tokenizer("total_variation")
        def total_variation(*, reconstruction, **_): ...

    Args:
      kind: what a row is, in words for error messages ("loss", "image source").
      wrap: makes the row of what is decorated and of the decorator's keywords; by default the decorated object itself.
    """

    def __init__(self, kind: str, wrap: Callable[..., Row] | None = None):
        self.kind = kind
        self._wrap = wrap
        self._rows: dict[str, Row] = {}
        self._definitions: dict[str, str] = {}

    def __call__(self, name: str, **attributes) -> Callable:
        """A decorator that adds a row and returns the decorated object unchanged."""

        def decorate(definition):
            self.add(name, self._wrap(definition, **attributes) if self._wrap else definition, definition)
            return definition

        return decorate

    def add(self, name: str, row: Row, definition: object = None) -> None:
        """Adds a row.

        Raises:
          UserError: another row has this name. Executing the same definition again replaces its row.
        """
        definition = row if definition is None else definition
        where = f"{getattr(definition, '__module__', '')}.{getattr(definition, '__qualname__', definition)}"
        if self._definitions.get(name, where) != where:
            raise UserError(f"There are two {self.kind}s named {name!r}, in {self._definitions[name]} and in {where}.")
        self._rows[name] = row
        self._definitions[name] = where

    def __getitem__(self, name: str) -> Row:
        """The row of a name.

        Raises:
          UserError: no row has this name; the nearest one is named.
        """
        self.check(name)
        return self._rows[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def check(self, name: str, field: str = "") -> None:
        """Raises `UserError` if no row has this name; `field` is the config field or flag that holds it."""
        if name not in self._rows:
            where = f"{field} is {name!r}: there" if field else "There"
            raise UserError(
                f"{where} is no {self.kind} {name!r}{nearest(name, self._rows)} "
                "If a file of yours adds it, name that file with --plugin FILE or import it in the config."
            )


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, 1, cutoff=0.5)
    # A misplaced field is found by its last part.
    close = close or [each for each in known if each.split(".")[-1] == str(name).split(".")[-1]]
    return f"; did you mean {close[0]!r}?" if close else f": choose one of {', '.join(known) or 'none'}."
