"""A run's log: JSON lines, TensorBoard, PNG pictures."""

import json
from pathlib import Path

import numpy as np

from fqgan_jax.files import write_atomically
from fqgan_jax.pictures.figures import save_picture

VALIDATION = "validation/"  # before the names of metrics of evaluations


class RunLog:
    """Writes `metrics.jsonl`, TensorBoard events and `pictures/` in a work folder.

    Args:
      workdir: work folder of the run.
      step: from which the run continues: lines that an interrupted run logged after it are dropped.
      writes: whether this process, one of many, writes the files.
    """

    def __init__(self, workdir: Path, step: int, *, writes: bool = True):
        kept = [line for line in read_log(workdir) if line["step"] <= step]
        self._newest = {name: value for line in kept for name, value in line.items()}
        self._writes = writes
        if not writes:
            return
        from tensorboardX import SummaryWriter

        self._lines = workdir / "metrics.jsonl"
        self._pictures = workdir / "pictures"
        self._pictures.mkdir(parents=True, exist_ok=True)
        write_atomically(self._lines, "".join(json.dumps(line) + "\n" for line in kept))
        self._tensorboard = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Logs numbers at a step."""
        self._newest |= values
        if not self._writes:
            return
        with self._lines.open("a") as file:
            file.write(json.dumps({"step": step} | values) + "\n")
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, step)

    @property
    def validation(self) -> dict[str, float]:
        """The newest value of every validation metric so far."""
        return {
            name.removeprefix(VALIDATION): value for name, value in self._newest.items() if name.startswith(VALIDATION)
        }

    def pictures(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Logs uint8 pictures `[H, W, 3]` at a step; `pictures/NAME.png` is the newest of each name."""
        if not self._writes:
            return
        for name, picture in pictures.items():
            save_picture(picture, self._pictures / f"{name}.png")
            self._tensorboard.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Flushes TensorBoard's file."""
        if self._writes:
            self._tensorboard.close()


def read_log(workdir: Path) -> list[dict]:
    """Returns the lines logged so far, without a last line that a killed process left incomplete."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole]
