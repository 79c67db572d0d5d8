"""Results of evaluations: numbers, reasons for missing ones, and the protocol, as JSON and as a table."""

import dataclasses
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import Int

from fqgan_jax.evaluation import metrics
from fqgan_jax.files import write_atomically

ROUNDING = "uint8 by clip(127.5 x + 128, 0, 255), truncated"
PACKAGES = ("fqgan-jax", "jax", "jaxlib", "flax", "numpy", "pillow", "dm_pix")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation.

    Attributes:
      results: numbers by name.
      missing: why a number is missing and how to get it, by name.
      protocol: everything that the numbers depend on.
    """

    results: dict[str, float]
    missing: dict[str, str]
    protocol: dict

    def table(self) -> str:
        """Returns a line for each number, with its unit and direction, and below why some are missing."""
        values = {name: f"{value:.6g}" for name, value in self.results.items()} | dict.fromkeys(self.missing, "missing")
        name_width, value_width = max(map(len, values)), max(map(len, values.values()))
        lines = [
            f"{name:>{name_width}}  {value:<{value_width}}  {metrics.how_to_read(name)}".rstrip()
            for name, value in values.items()
        ]
        lines += [f"Missing {names}: {reason}" for reason, names in self.reasons().items()]
        return "\n".join(lines)

    def reasons(self) -> dict[str, str]:
        """Returns each reason why something is missing with the names of what is missing."""
        reasons: dict[str, str] = {}
        for name, reason in self.missing.items():
            reasons[reason] = f"{reasons[reason]}, {name}" if reason in reasons else name
        return reasons

    def write(self, path: Path) -> None:
        """Writes numbers, what is missing and the protocol, with the versions of packages, as JSON."""
        versions = {name: version(name) for name in PACKAGES}
        content = {"results": self.results, "missing": self.missing}
        content["protocol"] = self.protocol | {"versions": versions}
        write_atomically(path, json.dumps(content, indent=2))


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table whose columns end at the same place in every row."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """An evaluation and what it was computed from.

    Attributes:
      evaluation: the numbers.
      features: features of the measured images, None without a network for them.
      codes: codes of the measured images, None if a set of images was measured.
      labels: their classes, None if there are no codes.
    """

    evaluation: Evaluation
    features: metrics.FeatureSet | None
    codes: Int[np.ndarray, "n h w K"] | None = None
    labels: Int[np.ndarray, " n"] | None = None

    def with_protocol(self, **entries: object) -> "Measurement":
        """Returns the measurement with more entries in front of its protocol."""
        evaluation = dataclasses.replace(self.evaluation, protocol=entries | self.evaluation.protocol)
        return dataclasses.replace(self, evaluation=evaluation)
