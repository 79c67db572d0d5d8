"""Where a run's numbers and pictures go, beside `metrics.jsonl` and `pictures/`: the rows of `loggers`.

A logger that keeps runs elsewhere knows a run by an identity, which the work folder keeps: a run that resumes goes on
under it.
"""

import dataclasses
import json
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fqgan_jax.config import Registry
from fqgan_jax.config.rules import flat
from fqgan_jax.errors import UserError, import_extra
from fqgan_jax.files import read_json, upload_folder, write_atomically
from fqgan_jax.storage import ObjectPath, in_storage
from fqgan_jax.training.background import Background

IDENTITIES = "loggers.json"
PROJECT = "fqgan_jax"
UPLOAD_SECONDS = 60.0  # between uploads of TensorBoard's file, each of all of it


class Logger(Protocol):
    """A place for numbers and pictures.

    Attributes:
      identity: of the run in that place; "" if the place is the work folder.
    """

    identity: str

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs numbers at a step."""

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Logs uint8 pictures `[H, W, 3]` at a step."""

    def close(self) -> None:
        """Writes what is still in memory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """A run as its loggers see it.

    Attributes:
      workdir: its work folder, whose name is the run's.
      step: from which it continues.
      config: its config.
      identity: what the logger called it before; "" if it is new to it.
    """

    workdir: Path
    step: int
    config: Mapping[str, Any]
    identity: str = ""


loggers: Registry[Callable[[LoggedRun], Logger]] = Registry("logger")


def check_loggers(names: tuple[str, ...]) -> None:
    """Raises `UserError` if there is no logger of a name, or its library (attribute `library`) is not installed."""
    for name in names:
        loggers.check(name, "train.logger")
        if library := getattr(loggers[name], "library", ""):
            import_extra(library, name)


def open_loggers(names: tuple[str, ...], run: LoggedRun) -> list[Logger]:
    """Opens the loggers of a run and records what they call it.

    Raises:
      UserError: a library is not installed, or a service cannot be asked.
    """
    path = run.workdir / IDENTITIES
    known = read_json(path, remedy="restore it, or remove it to log as a new run") if path.exists() else {}
    opened = {name: loggers[name](dataclasses.replace(run, identity=str(known.get(name, "")))) for name in names}
    known |= {name: logger.identity for name, logger in opened.items() if logger.identity}
    if known:
        write_atomically(path, json.dumps(known, indent=2))
    return list(opened.values())


@loggers("tensorboard")
class TensorBoard:
    """TensorBoard's files in the work folder; in object storage copies of local ones, at most `UPLOAD_SECONDS` old."""

    identity = ""

    def __init__(self, run: LoggedRun):
        from tensorboardX import SummaryWriter

        folder = run.workdir / "tensorboard"
        self._copy = _UploadedFolder(folder) if in_storage(folder) else None
        self._writer = SummaryWriter(str(self._copy.local if self._copy else folder), purge_step=run.step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        if self._copy and self._copy.is_due:
            self._writer.flush()
            self._copy.start_upload()

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """See `Logger`."""
        for name, picture in pictures.items():
            self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """See `Logger`."""
        self._writer.close()
        if self._copy:
            self._copy.close()


class _UploadedFolder:
    """A local folder that is uploaded now and then.

    Attributes:
      local: the folder.
    """

    def __init__(self, remote: ObjectPath):
        self._scratch = tempfile.TemporaryDirectory(prefix="fqgan_tensorboard_")
        self.local, self._remote = Path(self._scratch.name), remote
        self._upload, self._started = Background(), time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the last upload was long ago."""
        return time.monotonic() - self._started > UPLOAD_SECONDS

    def start_upload(self) -> None:
        """Uploads all of it, in a thread."""
        self._started = time.monotonic()
        self._upload.start(upload_folder, self.local, self._remote)

    def close(self) -> None:
        """Uploads all of it, and removes the local folder."""
        self._upload.wait()
        upload_folder(self.local, self._remote)
        self._scratch.cleanup()


@loggers("wandb")
class WeightsAndBiases:
    """Weights & Biases, set up by its own variables (WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE=offline)."""

    library = "wandb"

    def __init__(self, run: LoggedRun):
        self._wandb = import_extra(self.library, "wandb")
        self.identity = run.identity or secrets.token_hex(8)
        settings = self._wandb.Settings(console="off")
        try:
            self._run = self._wandb.init(
                id=self.identity,
                resume="allow",
                name=run.workdir.name,
                project=self._wandb.setup().settings.project or PROJECT,
                dir=None if in_storage(run.workdir) else run.workdir,
                config=dict(run.config),
                settings=settings,
            )
        except self._wandb.Error as error:
            raise _refused("wandb", error) from error
        # Its own count of steps never goes back, which a run does that resumes after a kill.
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger`."""
        self._run.log({"step": step, **values})

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """See `Logger`."""
        images = {f"pictures/{name}": self._wandb.Image(picture) for name, picture in pictures.items()}
        if images:
            self._run.log({"step": step, **images})

    def close(self) -> None:
        """See `Logger`."""
        self._run.finish()


@loggers("mlflow")
class MLflow:
    """MLflow, set up by its own variables (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME)."""

    library = "mlflow"

    def __init__(self, run: LoggedRun):
        self._mlflow = import_extra(self.library, "mlflow")
        try:
            started = self._mlflow.start_run(run_id=run.identity or None, run_name=run.workdir.name)
            self.identity = started.info.run_id
            if not run.identity:
                self._mlflow.log_params(flat(run.config))
        except self._mlflow.exceptions.MlflowException as error:
            raise _refused("mlflow", error) from error

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger`."""
        self._mlflow.log_metrics(dict(values), step=step, run_id=self.identity)

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """See `Logger`."""
        for name, picture in pictures.items():
            self._mlflow.log_image(picture, key=name, step=step)

    def close(self) -> None:
        """See `Logger`."""
        self._mlflow.end_run()


def _refused(name: str, error: Exception) -> UserError:
    return UserError(f"{name} does not take the run ({str(error).splitlines()[0]}): mend that, or change train.logger.")
