"""Metrics of the steps between two log lines, as clu metrics that merge on the device."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics
from jaxtyping import Array, Float, Int


@flax.struct.dataclass
class CodeUsage(metrics.Metric):
    """How often each code was chosen; usage and perplexity of each sub-codebook."""

    counts: Float[Array, "K N"]

    @classmethod
    def from_codes(cls, codes: Int[Array, "B h w K"], codebook_size: int, mask: Float[Array, " B"] | None = None):
        """Counts the codes of a batch, weighted by `mask` where given."""
        K = codes.shape[-1]
        weights = jnp.ones(codes.shape) if mask is None else jnp.broadcast_to(mask[:, None, None, None], codes.shape)
        # One counter for all sub-codebooks: code c of sub-codebook k is number k * N + c.
        numbers = codes + codebook_size * jnp.arange(K)
        counts = jnp.zeros(K * codebook_size).at[numbers.reshape(-1)].add(weights.reshape(-1))
        return cls(counts.reshape(K, codebook_size))

    def merge(self, other: "CodeUsage") -> "CodeUsage":
        return CodeUsage(self.counts + other.counts)

    def compute(self) -> dict[str, Float[np.ndarray, " K"]]:
        """Share of entries used at least once, how many were not, and exp of the entropy of their frequencies."""
        counts = np.asarray(self.counts, np.float64)
        p = counts / np.maximum(counts.sum(-1, keepdims=True), 1)
        entropy = -np.sum(p * np.log(np.maximum(p, 1e-30)), -1)
        return {"usage": np.mean(counts > 0, -1), "dead": np.sum(counts == 0, -1), "perplexity": np.exp(entropy)}


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
