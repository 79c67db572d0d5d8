"""Files and packages of users that add rows of their own."""

import importlib
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

from fqgan_jax.errors import UserError

GROUP = "fqgan_jax.plugins"  # the entry-point group of installed packages


def load_plugin(file: Path) -> None:
    """Imports a Python file as a module named after it; its folder joins the search path, so it can import others.

    Worker processes find it by the same name.

    Raises:
      UserError: there is no such file, or another module has its name.
    """
    if not file.is_file() or file.suffix != ".py":
        raise UserError(f"There is no Python file {file}: --plugin takes a .py file that adds rows.")
    search_beside(file)
    module = importlib.import_module(file.stem)
    found = Path(module.__file__ or "").resolve()
    if found != file.resolve():
        raise UserError(f"The plugin {file} has the name of another module ({found}): rename the file.")


def load_plugins(files: Iterable[Path] = ()) -> None:
    """Imports what installed packages name under the entry-point group `fqgan_jax.plugins`, then the files."""
    for entry in entry_points(group=GROUP):
        entry.load()
    for file in files:
        load_plugin(file)


def search_beside(file: Path) -> None:
    """Lets a config or a plugin import the files beside it, as Python does for a script."""
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
