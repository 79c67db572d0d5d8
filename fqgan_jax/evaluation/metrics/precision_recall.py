"""Improved precision and recall (Kynkäänniemi et al. 2019): the share of one set within the other's manifold.

A point lies within a set's manifold if it is at most as far from one of the set's points as that point is from its k-th
nearest neighbour in the set, itself not counted.
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from tqdm import tqdm

NEIGHBOURS = 3
CHUNK = 1024  # rows whose distances to a whole set exist at a time


def precision(
    reference: Float[np.ndarray, "n d"], samples: Float[np.ndarray, "m d"], *, neighbours: int = NEIGHBOURS
) -> float:
    """Returns the share of the samples within the reference's manifold, in [0, 1].

    Raises:
      ValueError: a set of fewer than k + 1 points.
    """
    real, drawn = _centered(reference, samples, neighbours)
    return _share_within(drawn, real, neighbours)


def recall(
    reference: Float[np.ndarray, "n d"], samples: Float[np.ndarray, "m d"], *, neighbours: int = NEIGHBOURS
) -> float:
    """Returns the share of the reference within the samples' manifold, in [0, 1].

    Raises:
      ValueError: a set of fewer than k + 1 points.
    """
    real, drawn = _centered(reference, samples, neighbours)
    return _share_within(real, drawn, neighbours)


def _centered(
    reference: Float[np.ndarray, "n d"], samples: Float[np.ndarray, "m d"], neighbours: int
) -> tuple[Float[Array, "n d"], Float[Array, "m d"]]:
    """Shifts both sets by the reference's mean: this changes no distance and keeps the squares small."""
    if min(len(reference), len(samples)) <= neighbours:
        raise ValueError(f"precision and recall need more than {neighbours} images in each set")
    center = np.mean(reference, axis=0, dtype=np.float64).astype(np.float32)
    return jnp.asarray(reference - center), jnp.asarray(samples - center)


def _radii(points: Float[Array, "n d"], neighbours: int) -> Float[Array, " n"]:
    """Squared distance of each point to its k-th nearest neighbour."""
    parts = [_kth_distance(chunk, points, neighbours) for chunk in _chunks(points, "nearest neighbours")]
    return jnp.concatenate(parts)[: len(points)]


def _share_within(points: Float[Array, "n d"], others: Float[Array, "m d"], neighbours: int) -> float:
    """Share of the points within the others' manifold."""
    radii = _radii(others, neighbours)
    parts = [_is_within(chunk, others, radii) for chunk in _chunks(points, "manifold")]
    return float(np.mean(np.asarray(jnp.concatenate(parts))[: len(points)]))


def _chunks(points: Float[Array, "n d"], title: str) -> Iterator[Float[Array, "c d"]]:
    """Yields parts of the same number of rows; the last one is filled with zeros."""
    size = min(CHUNK, len(points))
    padded = jnp.pad(points, ((0, -len(points) % size), (0, 0)))
    for start in tqdm(range(0, len(padded), size), desc=title, disable=len(padded) == size, leave=False):
        yield padded[start : start + size]


def _squared_distances(a: Float[Array, "c d"], b: Float[Array, "n d"]) -> Float[Array, "c n"]:
    products = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    distances = jnp.maximum(jnp.sum(a**2, 1)[:, None] + jnp.sum(b**2, 1) - 2 * products, 0)
    # The published evaluator compares distances in half precision: ten bits behind the leading one. It decides
    # about points on the border.
    return jax.lax.reduce_precision(distances, exponent_bits=8, mantissa_bits=10)


@jax.jit
def _is_within(chunk: Float[Array, "c d"], others: Float[Array, "m d"], radii: Float[Array, " m"]) -> Array:
    return jnp.any(_squared_distances(chunk, others) <= radii, axis=1)


@partial(jax.jit, static_argnums=2)
def _kth_distance(chunk: Float[Array, "c d"], points: Float[Array, "n d"], neighbours: int) -> Float[Array, " c"]:
    """Squared distance to the k-th nearest point after the chunk's own one."""
    nearest, _ = jax.lax.top_k(-_squared_distances(chunk, points), neighbours + 1)
    return -nearest[:, -1]
