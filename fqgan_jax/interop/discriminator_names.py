"""Discriminators in published checkpoints: one row per class with the names of its tensors."""

import dataclasses
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fqgan_jax.data.transforms import Size, height_and_width
from fqgan_jax.errors import UserError
from fqgan_jax.interop.correspondence import (
    Entry,
    Rule,
    check_tensors,
    correspondence,
    gather,
    layer,
    parameter_shapes,
    scatter,
)
from fqgan_jax.models.discriminators import PatchDiscriminator, StyleDiscriminator

Tensors = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedDiscriminator:
    """How discriminators of one class are written in published files.

    Attributes:
      rules: names of its parameters.
      buffer_endings: how the names of tensors end that are not learned; they are ignored when a file is read.
      buffers: gives those tensors, as in an untrained network, from the tensors that are learned.
    """

    rules: tuple[Rule, ...]
    buffer_endings: tuple[str, ...]
    buffers: Callable[[Tensors], dict[str, np.ndarray]]


def discriminator_entries(module: nn.Module, image_size: Size) -> list[Entry]:
    """Returns one entry per published tensor of a discriminator, without buffers.

    Args:
      module: the discriminator.
      image_size: of the images it is trained on.

    Raises:
      UserError: discriminators of this class have no published names.
    """
    images = jax.ShapeDtypeStruct((2, *height_and_width(image_size), 3), jnp.float32)
    return correspondence(_row(module).rules, parameter_shapes(module, images), ())


def import_discriminator(state: Tensors, module: nn.Module, image_size: Size) -> dict:
    """Returns the parameters of a discriminator (nested, float32) from published tensors.

    Buffers (running averages, the blur's filter) are ignored: training does not use them.

    Raises:
      UserError: tensors are missing, unexpected or of another shape, or the discriminator has no published names.
    """
    endings = _row(module).buffer_endings
    state = {name: tensor for name, tensor in state.items() if not name.endswith(endings)}
    entries = discriminator_entries(module, image_size)
    check_tensors(entries, state, "this discriminator")
    return scatter(entries, state)


def export_discriminator(params: Mapping, module: nn.Module, image_size: Size) -> dict[str, np.ndarray]:
    """Returns published tensors of a discriminator, with fresh buffers; the inverse of `import_discriminator`."""
    tensors = gather(discriminator_entries(module, image_size), params)
    return tensors | _row(module).buffers(tensors)


def _row(module: nn.Module) -> PublishedDiscriminator:
    row = published_discriminators.get(type(module))
    if row is None:
        raise UserError(
            f"{type(module).__name__} has no published tensor names, so its parameters are kept in checkpoints of a "
            "run alone: export without the discriminator, or add a row to "
            "fqgan_jax.interop.published_discriminators."
        )
    return row


def _patch_buffers(tensors: Tensors) -> dict[str, np.ndarray]:
    """Statistics of each batch normalization."""
    buffers = {}
    for name, tensor in tensors.items():
        if name.endswith(".weight") and tensor.ndim == 1:
            norm = name.removesuffix(".weight")
            buffers[f"{norm}.running_mean"] = np.zeros_like(tensor)
            buffers[f"{norm}.running_var"] = np.ones_like(tensor)
            buffers[f"{norm}.num_batches_tracked"] = np.zeros((), np.int64)
    return buffers


def _style_buffers(tensors: Tensors) -> dict[str, np.ndarray]:
    """The filter of the blur before each strided convolution."""
    names = [name for name in tensors if name.endswith("downsample.1.weight")]
    return {name.replace("1.weight", "0.f"): np.array([1, 2, 1], np.float32) for name in names}


# A Sequential counts its members: convolution, activation, then convolution, normalization, activation, ...
_PATCH = {
    "conv0": "main.0.",
    **{f"conv{i}": f"main.{3 * i - 1}." for i in range(1, 10)},
    **{f"norm{i}": f"main.{3 * i}." for i in range(1, 10)},
}
_STYLE = {"conv_in": "blocks.0.", "conv_out": "final_conv.0.", "dense": "final_linear.0.", "logit": "final_linear.2."}
_STYLE_BLOCK = {"skip": "conv_res.", "conv1": "net.0.", "conv2": "net.2.", "down": "downsample.1."}

# One row per class of discriminators.
published_discriminators: dict[type[nn.Module], PublishedDiscriminator] = {
    PatchDiscriminator: PublishedDiscriminator(
        rules=tuple(rule for path, published in _PATCH.items() for rule in layer(path, published)),
        buffer_endings=("running_mean", "running_var", "num_batches_tracked"),
        buffers=_patch_buffers,
    ),
    StyleDiscriminator: PublishedDiscriminator(
        rules=(
            *(rule for path, published in _STYLE.items() for rule in layer(path, published)),
            # The first two members of `blocks` are the input's convolution and its activation.
            *(
                rule
                for i in range(10)
                for path, published in _STYLE_BLOCK.items()
                for rule in layer(f"block{i}/{path}", f"blocks.{i + 2}.{published}")
            ),
        ),
        buffer_endings=("downsample.0.f",),
        buffers=_style_buffers,
    ),
}
