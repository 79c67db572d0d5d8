"""Metrics of the steps between two log lines, as clu metrics that merge on the device."""

import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics
from jaxtyping import Array, Float

Metrics = dict[str, metrics.Metric]


def average(value: Array) -> metrics.Average:
    """Average over steps of a value, or of each of K values on its own."""
    return metrics.Average(total=value, count=jnp.ones((), jnp.float32))


def masked_average(values: Float[Array, " B"], mask: Float[Array, " B"]) -> metrics.Average:
    """Average over the examples for which `mask` is 1."""
    return metrics.Average(total=jnp.sum(values * mask), count=jnp.sum(mask))


def merge(first: Metrics, second: Metrics) -> Metrics:
    """Merges two sets with the same names."""
    return {name: metric.merge(second[name]) for name, metric in first.items()}


def compute(collected: Metrics) -> dict[str, float]:
    """Plain numbers by name; a value per sub-codebook becomes NAME/0, NAME/1, ..."""
    values: dict[str, float] = {}
    for name, metric in jax.device_get(collected).items():
        computed = metric.compute()
        for part, value in computed.items() if isinstance(computed, dict) else ((name, computed),):
            value = np.asarray(value)
            values |= {part: float(value)} if not value.ndim else {f"{part}/{k}": float(v) for k, v in enumerate(value)}
    return values
