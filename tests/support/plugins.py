"""Files of users: the pages of docs/extending.md, and tables that are as before when a test ends."""

import gc
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fqgan_jax.config import Registry

PAGES = Path(__file__).parents[2] / "docs" / "extending.md"


def page(file: str) -> str:
    """The code of docs/extending.md that begins with the name of the file."""
    blocks = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGES.read_text(), re.MULTILINE | re.DOTALL)
    return dict(blocks)[file]


@contextmanager
def restored_tables() -> Iterator[None]:
    """Removes the rows, modules and search paths that come in within the block."""
    tables = [(each, dict(each._rows), dict(each._definitions)) for each in gc.get_objects() if type(each) is Registry]
    path = list(sys.path)
    try:
        yield
    finally:
        for table, rows, definitions in tables:
            table._rows, table._definitions = rows, definitions
        added = set(sys.path) - set(path)
        sys.path[:] = path
        for name, module in list(sys.modules.items()):
            if str(Path(getattr(module, "__file__", None) or "/").parent) in added:
                del sys.modules[name]
