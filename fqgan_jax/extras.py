"""Libraries that the base installation does not bring."""

import importlib
from types import ModuleType

from fqgan_jax.errors import UserError


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
