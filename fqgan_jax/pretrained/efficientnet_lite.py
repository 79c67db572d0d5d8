"""EfficientNet-Lite0, a classifier of ImageNet: EfficientNet-B0 (Tan & Le 2019) without squeeze-and-excitation.

Its weights come in a package of the Python package index (extra `lite`), so that machines without any other connection
have a network with learned semantics: a teacher, a perceptual loss, and metrics.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fqgan_jax.interop.correspondence import layer
from fqgan_jax.pretrained import preprocessing
from fqgan_jax.pretrained.convolutions import PRECISION, ConvNorm, unit_rules
from fqgan_jax.pretrained.tensors import import_tensors, read_tensors
from fqgan_jax.pretrained.weights import find_weights, networks

Dtype = jnp.dtype

NAME = "efficientnet-lite0"
SIZE = 224
WIDTH = 1280
CLASSES = 1000
# Of images in [0, 1]: pixels in [0, 255] are seen as (pixel - 127) / 128.
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3


class Stage(NamedTuple):
    """Blocks of one width; the first has the stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)  # Tan & Le 2019, table 1


class InvertedBottleneck(nn.Module, kw_only=True):
    """Expands the channels, convolves each on its own, and projects them (Sandler et al. 2018).

    The input is added if it has the shape of the output.

    Attributes:
      kernel: side of the depthwise kernel.
      stride: of the depthwise convolution.
      expansion: factor of the channels between; 1 leaves the first convolution out.
      width: channels of the output.
      dtype: data type of the computation.
    """

    kernel: int
    stride: int
    expansion: int
    width: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h2 w2 {self.width}"]:
        """Applies the block."""
        inner = self.expansion * x.shape[-1]
        unit = partial(ConvNorm, dtype=self.dtype)
        y = x
        if self.expansion > 1:
            y = unit(inner, activation=jax.nn.relu6, name="expand")(y)
        kernel = (self.kernel, self.kernel)
        y = unit(inner, kernel, self.stride, depthwise=True, activation=jax.nn.relu6, name="depthwise")(y)
        y = unit(self.width, name="project")(y)
        return x + y if y.shape == x.shape else y


class EfficientNetLite0(nn.Module):
    """The network, on images that `preprocess` made.

    Attributes:
      dtype: data type of the computation; normalization, features and logits are float32.
    """

    dtype: Dtype = jnp.float32

    def setup(self):
        """Makes the layers."""
        unit = partial(ConvNorm, activation=jax.nn.relu6, dtype=self.dtype)
        self.stem = unit(32, (3, 3), 2)
        self.blocks = [
            InvertedBottleneck(
                kernel=stage.kernel,
                stride=1 if index else stage.stride,
                expansion=stage.expansion,
                width=stage.width,
                dtype=self.dtype,
            )
            for stage in STAGES
            for index in range(stage.blocks)
        ]
        self.head = unit(WIDTH)
        self.classifier = nn.Dense(CLASSES, precision=PRECISION)

    def features(self, x: Float[Array, "B 224 224 3"]) -> Float[Array, "B 1280"]:
        """Returns the last features, their mean over positions."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return jnp.mean(self.head(x).astype(jnp.float32), axis=(1, 2))

    def __call__(self, x: Float[Array, "B 224 224 3"]) -> Float[Array, "B 1000"]:
        """Returns the logits of ImageNet's classes."""
        return self.classify(self.features(x))

    def classify(self, features: Float[Array, "B 1280"]) -> Float[Array, "B 1000"]:
        """Returns the logits of ImageNet's classes, given the last features."""
        return self.classifier(features)


# What the network sees of images in [-1, 1] of any size.
preprocess = partial(preprocessing.preprocess, mean=MEAN, std=STD, size=SIZE, resize=preprocessing.bicubic)

_BLOCK = "_blocks.{block}"
RULES = (
    *unit_rules("stem", convolution="_conv_stem", normalization="_bn0"),
    *unit_rules("blocks_{block}/expand", convolution=f"{_BLOCK}._expand_conv", normalization=f"{_BLOCK}._bn0"),
    *unit_rules("blocks_{block}/depthwise", convolution=f"{_BLOCK}._depthwise_conv", normalization=f"{_BLOCK}._bn1"),
    *unit_rules("blocks_{block}/project", convolution=f"{_BLOCK}._project_conv", normalization=f"{_BLOCK}._bn2"),
    *unit_rules("head", convolution="_conv_head", normalization="_bn1"),
    *layer("classifier", "_fc."),
)


def import_efficientnet_lite(state: Mapping[str, np.ndarray]) -> dict:
    """Returns the parameters of `EfficientNetLite0` (nested, float32) from the published tensors.

    Raises:
      UserError: tensors that are missing, unexpected or mis-shaped.
    """
    return import_tensors(state, RULES, EfficientNetLite0(), image_size=SIZE, model="EfficientNet-Lite0")


def load_efficientnet_lite(file: Path | None = None) -> dict:
    """Loads the parameters of `EfficientNetLite0` from a published file, by default that of the installed package.

    Raises:
      UserError: also if the package or PyTorch, which reads its file, is not installed.
    """
    return import_efficientnet_lite(read_tensors(file or find_weights(NAME) / networks[NAME].file_name))
