"""Names of the discriminators' tensors in published checkpoints."""

from collections.abc import Mapping

import numpy as np

from fqgan_jax.interop.correspondence import Layout, Rule, layer

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
