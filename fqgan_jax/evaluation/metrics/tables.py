"""The three tables of metrics and the types of their rows."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

from jaxtyping import Array, Float, PyTree

from fqgan_jax.config import Registry
from fqgan_jax.errors import check_choice

TASKS = ("images", "tokenizer", "generator")  # what `fqgan evaluate` measures


class NotMeasuredError(Exception):
    """A feature metric raises it, with the reason, if it cannot be computed from this reference or so few images."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """Unit and direction of a metric, for tables and reports.

    Attributes:
      unit: unit of the number; empty if it has none.
      better: whether higher or lower numbers are better; empty if neither is.
    """

    unit: str = ""
    better: Literal["higher", "lower", ""] = ""

    def __post_init__(self):
        """Raises `UserError` if `better` is none of its values."""
        check_choice("better", self.better, ("higher", "lower", ""))

    def how_to_read(self) -> str:
        """Returns, say, "dB, higher is better"."""
        return ", ".join(part for part in (self.unit, f"{self.better} is better" if self.better else "") if part)


@dataclasses.dataclass(frozen=True)
class ReconstructionMetric(Metric):
    """A row of `metrics.reconstruction`; its number is the mean over all images.

    Attributes:
      function: pure function of (reconstruction, original), both `[B, H, W, 3]` in [-1, 1], that returns `[B]`. If the
        metric has a network, its parameters come as the keyword `params`.
      load: returns the parameters of the metric's network, or raises `UserError` if they are not there.
      weights: names of the published weights that `load` reads; the protocol holds their SHA-256.
    """

    function: Callable[..., Float[Array, " B"]]
    _: dataclasses.KW_ONLY
    load: Callable[[], PyTree] | None = None
    weights: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class FeatureMetric(Metric):
    """A row of `metrics.feature`.

    Attributes:
      function: function of the measured images' features and the reference that returns a number or raises
        `NotMeasuredError`.
      network: name of the frozen network whose features it takes, a row of `feature_networks`.
      needs_reference: whether the images are compared with others; if not, the reference may be None.
      tasks: the evaluations that it is part of, some of `TASKS`.
      result_names: the name of its result by task, if it is not that of the metric.
    """

    function: Callable[..., float]
    _: dataclasses.KW_ONLY
    network: str = "inception"
    needs_reference: bool = True
    tasks: tuple[str, ...] = TASKS
    result_names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def result_name(self, metric: str, task: str) -> str:
        """Returns the name of the result in a task's evaluation."""
        return self.result_names.get(task, metric)


@dataclasses.dataclass(frozen=True)
class CodeMetric(Metric):
    """A row of `metrics.code`.

    Attributes:
      function: function of a `CodeSet` that returns numbers by sub-codebook ("0") or pair of them ("0-1"); the results
        are named `METRIC/0` and so on.
    """

    function: Callable[..., Mapping[str, float]]


reconstruction: Registry[ReconstructionMetric] = Registry("reconstruction metric", ReconstructionMetric)
feature: Registry[FeatureMetric] = Registry("feature metric", FeatureMetric)
code: Registry[CodeMetric] = Registry("code metric", CodeMetric)


def how_to_read(result: str) -> str:
    """Returns unit and direction of a result by its name ("rfid", "usage/0"); empty if no row has it."""
    name = result.split("/")[0]
    if name == "probe":  # no row: it needs a second set of images
        return Metric(better="higher").how_to_read()
    rows: dict[str, Metric] = {alias: metric for metric in feature.values() for alias in metric.result_names.values()}
    for table in (reconstruction, feature, code):
        rows.update(table)
    return rows[name].how_to_read() if name in rows else ""
