"""Plugins: files and installed packages of a user's own that add rows to the package's tables."""

import importlib
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

from fqgan_jax.errors import UserError, check

GROUP = "fqgan_jax.plugins"  # the entry-point group of installed packages


def load_plugins(files: Iterable[Path] = ()) -> None:
    """Imports what installed packages name under the entry-point group `fqgan_jax.plugins`, then the given files.

    Raises:
      UserError: see `load_plugin`.
    """
    for entry in entry_points(group=GROUP):
        entry.load()
    for file in files:
        load_plugin(file)


def load_plugin(file: Path) -> None:
    """Imports a Python file as a module named after it, once in a process.

    The file's folder joins the search path: the file can import its neighbours, and processes that this one spawns
    find the module by its name.

    Raises:
      UserError: there is no such file, it is no Python, or another module has its name.
    """
    check(
        file.is_file() and file.suffix == ".py",
        f"There is no Python file {file}: --plugin takes a .py file that adds rows.",
    )
    search_beside(file)
    try:
        module = importlib.import_module(file.stem)
    except SyntaxError as error:
        raise UserError(f"{error.filename}, line {error.lineno}: {error.msg}. Mend the plugin.") from error
    found = getattr(module, "__file__", None) or "built into Python"
    check(
        Path(found).resolve() == file.resolve(),
        f"The plugin {file} has the name of another module ({found}): rename the file.",
    )


def search_beside(file: Path) -> None:
    """Lets a config or a plugin import the files beside it, as Python lets a script."""
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
