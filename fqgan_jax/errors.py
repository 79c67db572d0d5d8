"""The one exception that speaks to the user instead of to the programmer, and the checks that raise it."""

import importlib
from types import ModuleType


class UserError(Exception):
    """Bad input. The message says what is wrong, where, and what to do; commands print only it.

    Attributes:
      code: with which commands exit.
    """

    code = 2


class DivergedError(UserError):
    """Training that does not go on because its numbers are not finite."""

    code = 3


def check(condition: object, sentence: str) -> None:
    """Raises `UserError(sentence)` unless the condition is true."""
    if not condition:
        raise UserError(sentence)


def check_choice(field: str, value: str, choices) -> None:
    """Raises `UserError` unless the value is among the choices."""
    known = ", ".join(choice or "''" for choice in choices)
    check(value in choices, f"{field} is {value!r}: choose one of {known}.")


def import_extra(module: str, extra: str) -> ModuleType:
    """Imports a library of one of the package's extras.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A library that is there and misses one of its own parts is not what the sentence says.
        if error.name != module:
            raise
        raise UserError(f"This needs {module}, which is not installed: pip install fqgan-jax[{extra}].") from error
