"""Teachers by the names that configs use."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from fqgan_jax.errors import UserError
from fqgan_jax.pretrained import hog
from fqgan_jax.pretrained.vit import ViT, clip_vit, dino_vit, preprocess
from fqgan_jax.pretrained.vit_files import load_vit
from fqgan_jax.pretrained.weights import NETWORKS, find_weights


@dataclasses.dataclass(frozen=True)
class HostTeacher:
    """A teacher that runs in the data pipeline: `features(image uint8 [H, W, 3])` gives `width` numbers."""

    width: int
    features: Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class DeviceTeacher:
    """A frozen network that runs inside the training step, with its parameters as an argument.

    Attributes:
      name: in configs, and of its weights.
      module: the network at its published sizes, known without any file.
      mean, std: of the images in [0, 1] that it was trained on, per channel.
    """

    name: str
    module: ViT
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def width(self) -> int:
        """W, the length of its feature."""
        return self.module.width

    @property
    def repository(self) -> str:
        """Where it is published on the hub."""
        return NETWORKS[self.name].repository

    def with_dtype(self, dtype: str) -> "DeviceTeacher":
        """The same teacher, computing in "float32" or "bfloat16"."""
        return dataclasses.replace(self, module=self.module.clone(dtype=jnp.dtype(dtype)))

    def features(self, params: PyTree, images: Float[Array, "B H W 3"]) -> Float[Array, "B W"]:
        """The class token of images in [-1, 1] of any size, float32; pure."""
        size = self.module.image_size
        return self.module.apply({"params": params}, preprocess(images, self.mean, self.std, size))

    def init(self, key: jax.Array) -> PyTree:
        """Random parameters (nested, float32) of the published shapes, for benchmarks and compilation without files."""
        size = self.module.image_size
        return self.module.init(key, jnp.zeros((1, size, size, 3)))["params"]

    def load(self) -> PyTree:
        """The published parameters from the cache (nested, float32, NumPy).

        Raises:
          UserError: weights that are not in the cache, damaged, or of a network of other sizes.
        """
        folder = find_weights(self.name)
        module, params = load_vit(folder, self.module.image_size)
        if module != self.module.clone(dtype=module.dtype):
            raise UserError(f"{folder} holds another network than {self.name}: fetch it again from {self.repository}.")
        return params


_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Width, depth and heads of the published sizes.
_SMALL, _BASE, _LARGE = (384, 12, 6), (768, 12, 12), (1024, 24, 16)

HOST_TEACHERS = {"hog": HostTeacher(hog.WIDTH, hog.hog_features)}
DEVICE_TEACHERS = {
    teacher.name: teacher
    for teacher in (
        DeviceTeacher("clip-vit-base-patch16", clip_vit(*_BASE, patch_size=16), *_CLIP),
        DeviceTeacher("clip-vit-base-patch32", clip_vit(*_BASE, patch_size=32), *_CLIP),
        DeviceTeacher("clip-vit-large-patch14", clip_vit(*_LARGE, patch_size=14), *_CLIP),
        DeviceTeacher("dinov2-small", dino_vit(*_SMALL), *_IMAGENET),
        DeviceTeacher("dinov2-base", dino_vit(*_BASE), *_IMAGENET),
        DeviceTeacher("dinov2-large", dino_vit(*_LARGE), *_IMAGENET),
        DeviceTeacher("dinov2-with-registers-small", dino_vit(*_SMALL, num_registers=4), *_IMAGENET),
        DeviceTeacher("dinov2-with-registers-base", dino_vit(*_BASE, num_registers=4), *_IMAGENET),
        DeviceTeacher("dinov2-with-registers-large", dino_vit(*_LARGE, num_registers=4), *_IMAGENET),
    )
}
