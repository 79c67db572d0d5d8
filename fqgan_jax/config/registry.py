"""Tables of rows: variants that a config or a command chooses by name, and to which users add their own."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar, overload

from fqgan_jax.errors import UserError

Row = TypeVar("Row")
Definition = TypeVar("Definition")
Default = TypeVar("Default")


class Registry(Mapping[str, Row], Generic[Row]):
    """Rows of one kind by name, in the order in which they were added.

    Calling the registry with a name returns a decorator that adds a row:

        @losses.tokenizer("total_variation")
        def total_variation(*, reconstruction, **_): ...

    A registry with a `section` gives every row a field of that section in the configs of its task: a weight, 0 unless
    the config says otherwise. So a loss of a user's own is switched on by `--config.loss.total_variation=0.1`.
    """

    def __init__(self, kind: str, wrap: Callable[..., Row] | None = None, *, section: str = "", task: str = ""):
        """Makes an empty registry.

        Args:
          kind: what a row is, in words for error messages ("loss", "image source").
          wrap: makes the row from the decorated object and the decorator's keywords; by default the row is the
            decorated object itself, and the decorator takes no keywords.
          section: the section of a config that has a weight for every row; "" if none has.
          task: the task whose configs have that section.
        """
        self.kind = kind
        self.section = section
        self.task = task
        self._wrap: Callable[..., Row] = wrap or _unchanged
        self._rows: dict[str, Row] = {}
        self._definitions: dict[str, str] = {}
        if section:
            _with_section.append(self)

    def __call__(self, name: str, **attributes) -> Callable[[Definition], Definition]:
        """Returns a decorator that adds a row and returns the decorated object unchanged.

        Raises:
          UserError: the registry itself was used as a decorator, without a name.
        """
        if not isinstance(name, str):
            raise UserError(f'A row of kind {self.kind!r} needs a name: write the decorator with one, as in ("mine").')

        def decorate(definition: Definition) -> Definition:
            self.add(name, self._wrap(definition, **attributes), definition=definition)
            return definition

        return decorate

    def add(self, name: str, row: Row, *, definition: object = None) -> Row:
        """Adds a row and returns it.

        Args:
          name: name of the row.
          row: the row.
          definition: the function or class that the row was made from, if it is not the row itself. Adding the same
            definition again, as a config file that is loaded twice does, replaces its row.

        Raises:
          UserError: another definition has this name.
        """
        location = _location(row if definition is None else definition)
        if self._definitions.get(name, location) != location:
            raise UserError(
                f"There are two rows of kind {self.kind!r} named {name!r}, {self._definitions[name]} and {location}: "
                "rename one."
            )
        self._rows[name] = row
        self._definitions[name] = location
        return row

    def __getitem__(self, name: str) -> Row:
        """Returns the row of a name.

        Raises:
          UserError: no row has this name; the message names the nearest one.
        """
        self.check(name)
        return self._rows[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def get(self, name: str, default: None = None) -> Row | None: ...

    @overload
    def get(self, name: str, default: Row | Default) -> Row | Default: ...

    def get(self, name: str, default: object = None) -> object:
        """Returns the row of a name, or a default if no row has this name."""
        return self._rows.get(name, default)

    def check(self, name: str, field: str = "") -> None:
        """Checks that a row has this name.

        Args:
          name: name of the row.
          field: the config field or flag that holds the name, for the message.

        Raises:
          UserError: no row has this name; the message names the nearest one.
        """
        if name not in self._rows:
            beginning = f"{field} is {name!r}: there" if field else "There"
            raise UserError(
                f"{beginning} is no {self.kind} {name!r}{nearest(name, self._rows)} "
                "If a file of yours adds it, name that file with --plugin FILE or import it in the config; in Python, "
                "import it first."
            )


_with_section: list[Registry] = []


def missing_weights(task: str, sections: Mapping[str, Mapping]) -> dict[str, dict[str, float]]:
    """Returns the weights that a config lacks, each 0, by section and name of the row.

    Args:
      task: task of the config.
      sections: sections of the config; a missing one counts as empty.
    """
    missing: dict[str, dict[str, float]] = {}
    for registry in _with_section:
        if registry.task == task:
            present = sections.get(registry.section, {})
            missing.setdefault(registry.section, {}).update({name: 0.0 for name in registry if name not in present})
    return {section: weights for section, weights in missing.items() if weights}


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns the end of a sentence about an unknown name: the nearest known name, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, 1, cutoff=0.5)
    # A misplaced field is found by its last part.
    close = close or [each for each in known if each.split(".")[-1] == str(name).split(".")[-1]]
    return f"; did you mean {close[0]!r}?" if close else f": choose one of {', '.join(known) or 'none'}."


def _unchanged(definition: Any) -> Any:
    return definition


def _location(definition: object) -> str:
    """Returns the full name of a function or a class; of any other object, its module and its type."""
    named = definition if hasattr(definition, "__qualname__") else type(definition)
    return f"{named.__module__}.{named.__qualname__}"
