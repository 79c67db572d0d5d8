"""A run's log: JSON lines, PNG pictures, and its loggers."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fqgan_jax.files import write_atomically
from fqgan_jax.pictures.figures import save_picture
from fqgan_jax.storage import in_storage
from fqgan_jax.training.background import Background
from fqgan_jax.training.loggers import LoggedRun, open_loggers

VALIDATION = "validation/"  # before the names of metrics of evaluations


class RunLog:
    """Writes `metrics.jsonl` and `pictures/` in a work folder, and what its loggers write.

    Args:
      workdir: work folder of the run.
      step: from which the run continues: lines that an interrupted run logged after it are dropped.
      writes: whether this process, one of many, writes.
      loggers: rows of `loggers.loggers`.
      config: of the run, for its loggers.

    Raises:
      UserError: a logger's library is not installed, or its service does not take the run.
    """

    def __init__(
        self,
        workdir: Path,
        step: int,
        *,
        writes: bool = True,
        loggers: tuple[str, ...] = ("tensorboard",),
        config: Mapping[str, Any] | None = None,
    ):
        kept = [line for line in read_log(workdir) if line["step"] <= step]
        self._newest = newest_values(kept)
        self._writes = writes
        if not writes:
            return
        self._loggers = open_loggers(loggers, LoggedRun(workdir=workdir, step=step, config=config or {}))
        self._pictures = workdir / "pictures"
        self._pictures.mkdir(parents=True, exist_ok=True)
        self._lines = _Lines(workdir / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Logs numbers at a step."""
        self._newest |= values
        if not self._writes:
            return
        self._lines.add(json.dumps({"step": step} | values) + "\n")
        for logger in self._loggers:
            logger.scalars(step, values)

    def newest(self, name: str, default: float) -> float:
        """Returns the newest value of a number so far, or a default if it was never logged."""
        return self._newest.get(name, default)

    @property
    def validation(self) -> dict[str, float]:
        """The newest value of every validation metric so far."""
        return validation_metrics(self._newest)

    def pictures(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Logs uint8 pictures `[H, W, 3]` at a step; `pictures/NAME.png` is the newest of each name."""
        if not self._writes:
            return
        for name, picture in pictures.items():
            save_picture(picture, self._pictures / f"{name}.png")
        for logger in self._loggers:
            logger.pictures(step, pictures)

    def close(self) -> None:
        """Writes what is still in memory."""
        if self._writes:
            self._lines.close()
            for logger in self._loggers:
                logger.close()


class _Lines:
    """A file that grows by lines; in object storage a thread writes all of it again for each, so a kill costs one."""

    def __init__(self, path: Path, text: str):
        write_atomically(path, text)
        self._path, self._text, self._write = path, text, Background()

    def add(self, line: str) -> None:
        """Appends a line."""
        if in_storage(self._path):
            self._text += line
            self._write.start(self._path.write_text, self._text)
            return
        with self._path.open("a") as file:
            file.write(line)

    def close(self) -> None:
        """Waits until every line is written."""
        self._write.wait()


def read_log(workdir: Path) -> list[dict]:
    """Returns the lines logged so far, without those that a kill or a full disk left incomplete."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    return list(filter(None, map(_whole_line, path.read_bytes().split(b"\n"))))


def _whole_line(text: bytes) -> dict | None:
    """A line's numbers; None if it is damaged."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None


def newest_values(lines: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Returns the newest value of each number in lines of a log."""
    return {name: value for line in lines for name, value in line.items()}


def validation_metrics(values: Mapping[str, float]) -> dict[str, float]:
    """Returns the metrics of evaluations among the numbers of a log, by their own names."""
    return {name.removeprefix(VALIDATION): value for name, value in values.items() if name.startswith(VALIDATION)}
