"""Names of the discriminators' tensors in published checkpoints."""

from collections.abc import Mapping

import numpy as np

from fqgan_jax.interop.correspondence import layer

# A Sequential counts its members: convolution, activation, then convolution, normalization, activation, ...
_PATCH = {
    "conv0": "main.0.",
    **{f"conv{i}": f"main.{3 * i - 1}." for i in range(1, 10)},
    **{f"norm{i}": f"main.{3 * i}." for i in range(1, 10)},
}
PATCH_RULES = tuple(rule for ours, published in _PATCH.items() for rule in layer(ours, published))

_STYLE = {"conv_in": "blocks.0.", "conv_out": "final_conv.0.", "dense": "final_linear.0.", "logit": "final_linear.2."}
_STYLE_BLOCK = {"skip": "conv_res.", "conv1": "net.0.", "conv2": "net.2.", "down": "downsample.1."}
STYLE_RULES = (
    *(rule for ours, published in _STYLE.items() for rule in layer(ours, published)),
    # The first two members of `blocks` are the input's convolution and its activation.
    *(
        rule
        for i in range(10)
        for ours, published in _STYLE_BLOCK.items()
        for rule in layer(f"block{i}/{ours}", f"blocks.{i + 2}.{published}")
    ),
)

# Tensors of a published discriminator that are not learned, by the end of their names.
DISCRIMINATOR_BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "downsample.0.f")


def discriminator_buffers(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The buffers that belong to a discriminator's tensors, as in a network that has seen no batch."""
    buffers = {}
    for name, tensor in tensors.items():
        layer_name = name.removesuffix(".weight")
        if name.startswith("main.") and name.endswith(".weight") and tensor.ndim == 1:  # batch normalization
            buffers[f"{layer_name}.running_mean"] = np.zeros_like(tensor)
            buffers[f"{layer_name}.running_var"] = np.ones_like(tensor)
            buffers[f"{layer_name}.num_batches_tracked"] = np.zeros((), np.int64)
        elif name.endswith("downsample.1.weight"):  # the blur before it
            buffers[name.replace("1.weight", "0.f")] = np.array([1, 2, 1], np.float32)
    return buffers
