"""The Inception network of the FID ("2015-12-05" graph; Szegedy et al. 2016, Heusel et al. 2017) and its resize.

It differs from the classifier of the same name in its average pools, which do not count padding, and in the last
block, whose pool is a maximum. Layers carry their published names.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, UInt8

from fqgan_jax.interop.correspondence import Rule, layer
from fqgan_jax.pretrained.convolutions import PRECISION, ConvNorm, unit_rules
from fqgan_jax.pretrained.tensors import TENSORS, import_tensors, read_tensors
from fqgan_jax.pretrained.weights import find_weights

NAME = "inception-fid"
SIZE = 299
CLASSES = 1008
SPATIAL_BLOCK, SPATIAL_UNIT, SPATIAL_CHANNELS = "Mixed_6d", "branch1x1", 7


class Unit(NamedTuple):
    """A convolution, normalization by stored statistics, and ReLU."""

    name: str
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"


# What a block does: its branches side by side, each a chain of units, of poolings, and of units side by side.
Step = Unit | Callable[[Array], Array] | tuple[Unit, ...]
Branch = tuple[Step, ...]

mean_around = partial(nn.avg_pool, window_shape=(3, 3), strides=(1, 1), padding="SAME", count_include_pad=False)
largest_around = partial(nn.max_pool, window_shape=(3, 3), strides=(1, 1), padding="SAME")
halve = partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2))


def _block_35(pool_width: int) -> tuple[Branch, ...]:
    return (
        (Unit("branch1x1", 64),),
        (Unit("branch5x5_1", 48), Unit("branch5x5_2", 64, (5, 5))),
        (Unit("branch3x3dbl_1", 64), Unit("branch3x3dbl_2", 96, (3, 3)), Unit("branch3x3dbl_3", 96, (3, 3))),
        (mean_around, Unit("branch_pool", pool_width)),
    )


def _block_17(width: int) -> tuple[Branch, ...]:
    row, column = (1, 7), (7, 1)
    return (
        (Unit("branch1x1", 192),),
        (Unit("branch7x7_1", width), Unit("branch7x7_2", width, row), Unit("branch7x7_3", 192, column)),
        (
            Unit("branch7x7dbl_1", width),
            Unit("branch7x7dbl_2", width, column),
            Unit("branch7x7dbl_3", width, row),
            Unit("branch7x7dbl_4", width, column),
            Unit("branch7x7dbl_5", 192, row),
        ),
        (mean_around, Unit("branch_pool", 192)),
    )


def _block_8(pool: Callable[[Array], Array]) -> tuple[Branch, ...]:
    row, column = (1, 3), (3, 1)
    return (
        (Unit("branch1x1", 320),),
        (Unit("branch3x3_1", 384), (Unit("branch3x3_2a", 384, row), Unit("branch3x3_2b", 384, column))),
        (
            Unit("branch3x3dbl_1", 448),
            Unit("branch3x3dbl_2", 384, (3, 3)),
            (Unit("branch3x3dbl_3a", 384, row), Unit("branch3x3dbl_3b", 384, column)),
        ),
        (pool, Unit("branch_pool", 192)),
    )


STEM: tuple[Unit | Callable[[Array], Array], ...] = (
    Unit("Conv2d_1a_3x3", 32, (3, 3), 2, "VALID"),
    Unit("Conv2d_2a_3x3", 32, (3, 3), 1, "VALID"),
    Unit("Conv2d_2b_3x3", 64, (3, 3)),
    halve,
    Unit("Conv2d_3b_1x1", 80),
    Unit("Conv2d_4a_3x3", 192, (3, 3), 1, "VALID"),
    halve,
)
BLOCKS: dict[str, tuple[Branch, ...]] = {
    "Mixed_5b": _block_35(32),
    "Mixed_5c": _block_35(64),
    "Mixed_5d": _block_35(64),
    "Mixed_6a": (
        (Unit("branch3x3", 384, (3, 3), 2, "VALID"),),
        (
            Unit("branch3x3dbl_1", 64),
            Unit("branch3x3dbl_2", 96, (3, 3)),
            Unit("branch3x3dbl_3", 96, (3, 3), 2, "VALID"),
        ),
        (halve,),
    ),
    "Mixed_6b": _block_17(128),
    "Mixed_6c": _block_17(160),
    "Mixed_6d": _block_17(160),
    "Mixed_6e": _block_17(192),
    "Mixed_7a": (
        (Unit("branch3x3_1", 192), Unit("branch3x3_2", 320, (3, 3), 2, "VALID")),
        (
            Unit("branch7x7x3_1", 192),
            Unit("branch7x7x3_2", 192, (1, 7)),
            Unit("branch7x7x3_3", 192, (7, 1)),
            Unit("branch7x7x3_4", 192, (3, 3), 2, "VALID"),
        ),
        (halve,),
    ),
    "Mixed_7b": _block_8(mean_around),
    "Mixed_7c": _block_8(largest_around),
}


class InceptionFeatures(NamedTuple):
    """Outputs of the network that the metrics need.

    Attributes:
      pool: for FID, precision and recall.
      spatial: for sFID.
      logits: with the bias; `logits_without_bias` for the inception score.
    """

    pool: Float[Array, "B 2048"]
    spatial: Float[Array, "B 2023"]
    logits: Float[Array, "B 1008"]
    logits_without_bias: Float[Array, "B 1008"]


def _conv_norm(unit: Unit) -> ConvNorm:
    return ConvNorm(unit.width, unit.kernel, unit.stride, unit.padding, activation=nn.relu, name=unit.name)


class Block(nn.Module):
    """Branches side by side, joined over channels; returns its units' outputs by name too."""

    branches: tuple[Branch, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> tuple[Float[Array, "B h w C"], dict[str, Array]]:
        """Returns the joined outputs of the branches, and name to output of every unit."""
        units: dict[str, Array] = {}

        def apply(step: Step, y: Array) -> Array:
            if isinstance(step, Unit):
                units[step.name] = _conv_norm(step)(y)
                return units[step.name]
            return step(y) if callable(step) else jnp.concatenate([apply(each, y) for each in step], -1)

        outputs = []
        for branch in self.branches:
            y = x
            for step in branch:
                y = apply(step, y)
            outputs.append(y)
        return jnp.concatenate(outputs, axis=-1), units


class Inception(nn.Module):
    """The network, on images that `preprocess` made."""

    @nn.compact
    def __call__(self, x: Float[Array, "B 299 299 3"]) -> InceptionFeatures:
        """Returns what the metrics need of the images."""
        for step in STEM:
            x = _conv_norm(step)(x) if isinstance(step, Unit) else step(x)
        for name, branches in BLOCKS.items():
            x, units = Block(branches, name=name)(x)
            if name == SPATIAL_BLOCK:
                spatial = units[SPATIAL_UNIT][..., :SPATIAL_CHANNELS].reshape(len(x), -1)
        pool = jnp.mean(x, axis=(1, 2))
        logits = nn.Dense(CLASSES, use_bias=False, precision=PRECISION, name="fc")(pool)
        bias = self.param("fc_bias", nn.initializers.zeros, (CLASSES,))
        return InceptionFeatures(pool, spatial, logits + bias, logits)


def resize(
    images: UInt8[Array, "B H W 3"] | Float[Array, "B H W 3"], size: int = SIZE
) -> Float[Array, "B {size} {size} 3"]:
    """The evaluator's bilinear resize: source = target * in / out, no half-pixel offset, no antialiasing."""
    images = images.astype(jnp.float32)
    for axis in (1, 2):
        low, high, share = _neighbours(images.shape[axis], size)
        share = share.reshape(-1, *(1,) * (3 - axis))
        first, second = jnp.take(images, low, axis), jnp.take(images, high, axis)
        images = first + (second - first) * share
    return images


def _neighbours(length: int, size: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    position = np.arange(size, dtype=np.float32) * np.float32(length / size)
    low = np.floor(position).astype(np.int32)
    return low, np.minimum(low + 1, length - 1), position - low


def preprocess(images: UInt8[Array, "B H W 3"]) -> Float[Array, "B 299 299 3"]:
    """Resizes and normalizes pixels in [0, 255] of any size for the network."""
    return (resize(images) - 128) / 128


def _unit_names() -> Iterator[str]:
    """Returns the paths of all units in `Inception`."""

    def names(step) -> Iterator[str]:
        if isinstance(step, Unit):
            yield step.name
        elif isinstance(step, tuple):
            for each in step:
                yield from names(each)

    yield from names(STEM)
    for block, branches in BLOCKS.items():
        yield from (f"{block}/{name}" for name in names(branches))


def _rules_of(name: str) -> tuple[Rule, ...]:
    published = name.replace("/", ".")
    return unit_rules(name, convolution=f"{published}.conv", normalization=f"{published}.bn")


INCEPTION_RULES = (
    *(rule for name in _unit_names() for rule in _rules_of(name)),
    *layer("fc", "fc."),
    Rule("fc_bias", "fc.bias"),
)


def import_inception(state: Mapping[str, np.ndarray]) -> dict:
    """Returns the parameters of `Inception` (nested, float32) from the published tensors.

    Raises:
      UserError: tensors that are missing, unexpected or mis-shaped.
    """
    return import_tensors(
        state, INCEPTION_RULES, Inception(), image_size=SIZE, model="the Inception network of the FID"
    )


def load_inception(file: Path | None = None) -> PyTree:
    """Loads the parameters of `Inception` from a file (safetensors or PyTorch), by default the one in the cache.

    Raises:
      UserError: also if the file is missing or damaged.
    """
    return import_inception(read_tensors(file or find_weights(NAME) / TENSORS))
