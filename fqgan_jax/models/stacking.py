"""Which parameters are stacked: layers over depth (nn.scan) and over sub-codebooks (nn.vmap), tables over K."""

import re

# Parts of a parameter's path; each adds one leading axis to what the layer itself has.
STACKS = (
    r"blocks/",  # transformer blocks, over depth
    r"heads/heads/",  # adapters, over K
    r"quantizer/(codebooks|basis|projection)$",  # over K
    r"code_(tables|entries|projection)$",  # of FAR, over K
    r"outputs$",  # of FAR, over K
)


def axes_within_layer(path: str, ndim: int) -> int:
    """Number of axes that a parameter has in its own layer, without the axes over which layers are stacked.

    Args:
      path: path of the parameter, its parts separated by "/".
      ndim: number of axes of the whole array.
    """
    return ndim - sum(re.search(f"(^|/){stack}", path) is not None for stack in STACKS)
