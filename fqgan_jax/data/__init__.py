"""Images, and the training and evaluation batches made from them.

Reading images and opening sources needs NumPy and Pillow only. Batches are in `stream` and `loader`, which import grain
and JAX.
"""

from fqgan_jax.data.images import UnreadableImageError, read_image
from fqgan_jax.data.skipping import Skipped
from fqgan_jax.data.sources import Source, open_source

__all__ = ["Skipped", "Source", "UnreadableImageError", "open_source", "read_image"]
