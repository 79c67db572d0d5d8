"""Metrics of the steps between two log lines, as clu metrics that merge on the device."""

import time

import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics
from jaxtyping import Array, Float

Metrics = dict[str, metrics.Metric]


def average(value: Array, count: Array | float = 1.0) -> metrics.Average:
    """Returns the average over steps of a value, or of each of K values on its own.

    A value that does not count in a step is 0 there, and its `count` too.
    """
    return metrics.Average(total=value, count=jnp.asarray(count, jnp.float32))


def masked_average(values: Float[Array, " B"], mask: Float[Array, " B"]) -> metrics.Average:
    """Returns the average over the examples for which `mask` is 1."""
    return metrics.Average(total=jnp.sum(values * mask), count=jnp.sum(mask))


def merge(first: Metrics, second: Metrics) -> Metrics:
    """Merges two sets of metrics with the same names."""
    return {name: metric.merge(second[name]) for name, metric in first.items()}


def compute(collected: Metrics) -> dict[str, float]:
    """Returns plain numbers by name; a value per sub-codebook becomes NAME/0, NAME/1, ...

    What never counted, such as the losses of a sub-codebook that every step left out, has no number.
    """
    values: dict[str, float] = {}
    for name, metric in jax.device_get(collected).items():
        with np.errstate(invalid="ignore"):
            computed = metric.compute()
        for part, value in computed.items() if isinstance(computed, dict) else [(name, computed)]:
            value = np.asarray(value)
            counted = np.broadcast_to(np.asarray(getattr(metric, "count", 1)) > 0, value.shape)
            names = [part] if not value.ndim else [f"{part}/{k}" for k in range(len(value))]
            parts = zip(names, np.atleast_1d(value), np.atleast_1d(counted), strict=True)
            values |= {name: float(number) for name, number, counts in parts if counts}
    return values


_merge = jax.jit(merge)


class Meter:
    """Metrics and speed of the steps since the last log line.

    Nothing is read from the devices before `read`.

    Args:
      batch_size: examples of a step, over all devices and hosts.
      step: steps made so far.
    """

    def __init__(self, batch_size: int, step: int):
        self._batch_size = batch_size
        self._collected: Metrics | None = None
        self.restart_clock(step)

    def add(self, metrics: Metrics) -> None:
        """Adds the metrics of one step."""
        self._collected = metrics if self._collected is None else _merge(self._collected, metrics)

    def read(self, step: int) -> tuple[dict[str, float], float]:
        """Returns the metrics' values and the examples per second, and begins anew."""
        assert self._collected is not None
        values = compute(self._collected)
        rate = (step - self._first_step) * self._batch_size / (time.monotonic() - self._start)
        self._collected = None
        self.restart_clock(step)
        return values, rate

    def restart_clock(self, step: int) -> None:
        """Measures the speed from now on, so that it leaves out what was not training."""
        self._first_step, self._start = step, time.monotonic()
