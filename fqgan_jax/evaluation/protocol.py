"""What an evaluation gives: numbers, why some are missing, and how they were obtained, as JSON and as a table."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from fqgan_jax.files import write_atomically

ROUNDING = "uint8 by clip(127.5 x + 128, 0, 255), truncated"
PACKAGES = ("fqgan-jax", "jax", "jaxlib", "flax", "numpy", "pillow", "dm_pix")


class Evaluation(NamedTuple):
    """One evaluation.

    Attributes:
      results: numbers by name.
      missing: by name why a number is not there, and how to get it.
      protocol: everything that the numbers depend on.
    """

    results: dict[str, float]
    missing: dict[str, str]
    protocol: dict

    def table(self) -> str:
        """One line a number, and below them why some are missing."""
        rows = {name: f"{value:.6g}" for name, value in self.results.items()} | dict.fromkeys(self.missing, "missing")
        width = max(map(len, rows))
        lines = [f"{name:>{width}}  {value}" for name, value in rows.items()]
        lines += [f"Missing {names}: {reason}" for reason, names in self.reasons().items()]
        return "\n".join(lines)

    def reasons(self) -> dict[str, str]:
        """Each reason why something is missing, to the names it holds for."""
        reasons: dict[str, str] = {}
        for name, reason in self.missing.items():
            reasons[reason] = f"{reasons[reason]}, {name}" if reason in reasons else name
        return reasons

    def write(self, path: Path) -> None:
        """Writes the whole as JSON."""
        versions = {name: version(name) for name in PACKAGES}
        content = self._asdict() | {"protocol": self.protocol | {"versions": versions}}
        write_atomically(path, json.dumps(content, indent=2))
