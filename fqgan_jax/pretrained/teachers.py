"""Teachers: frozen descriptions of an image that sub-codebooks learn to predict. A teacher is one row of `teachers`.

A plain function of an image is a teacher that runs in the data pipeline:

    @teachers("brightness", width=3)
    def brightness(image):
        return image.mean(axis=(0, 1)).astype(np.float32)

A network is a teacher that runs inside the training step:

    teachers.add("mine", DeviceTeacher(module=Mine(), width=16, image_size=32, load=load_mine))

Both are then names in `config.teachers`.
"""

import dataclasses
from collections.abc import Callable, Iterable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8

from fqgan_jax.config import Registry
from fqgan_jax.errors import UserError, check
from fqgan_jax.models.applying import apply
from fqgan_jax.pretrained import efficientnet_lite, hog
from fqgan_jax.pretrained.preprocessing import Resize, bicubic, nearest, preprocess
from fqgan_jax.pretrained.vit import ViT, clip_vit, dino_vit
from fqgan_jax.pretrained.vit_files import CLIP, DINOV2, DINOV2_WITH_REGISTERS, Family, load_vit
from fqgan_jax.pretrained.weights import FrozenNetwork, find_weights, networks


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostTeacher:
    """A teacher that runs in the data pipeline.

    Attributes:
      features: function of a crop, uint8 [H, W, 3], that returns float32 [width].
      width: W, the length of its feature.
    """

    features: Callable[[UInt8[np.ndarray, "H W 3"]], Float[np.ndarray, " W"]]
    width: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceTeacher:
    """A frozen network that runs inside the training step, with its parameters as an argument of the step.

    Attributes:
      module: maps normalized images [B, image_size, image_size, 3] to features [B, width]. If it has a field `dtype`,
        it computes in the config's `frozen_dtype`.
      method: method of the module that returns the features.
      width: W, the length of its feature.
      image_size: side of the images that it takes; others are resized to it.
      resize: how (`pretrained.preprocessing`).
      mean: of images in [0, 1], per channel; subtracted.
      std: of images in [0, 1], per channel; divided by. With the defaults the network sees images in [-1, 1].
      load: returns its parameters (nested, float32).
      weights: the row of `networks` whose weights `load` reads; None if it reads no published weights.
    """

    module: nn.Module
    method: str = "__call__"
    width: int
    image_size: int
    resize: Resize = nearest
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    load: Callable[[], PyTree]
    weights: FrozenNetwork | None = None

    def with_dtype(self, dtype: str) -> "DeviceTeacher":
        """Returns the same teacher computing in "float32" or "bfloat16"."""
        if not hasattr(self.module, "dtype"):
            return self
        return dataclasses.replace(self, module=self.module.clone(dtype=jnp.dtype(dtype)))

    def features(self, params: PyTree, images: Float[Array, "B H W 3"]) -> Float[Array, "B W"]:
        """Returns the features of images in [-1, 1] of any size, float32; pure.

        Raises:
          UserError: the module's features have another width than the row says.
        """
        seen = preprocess(images, mean=self.mean, std=self.std, size=self.image_size, resize=self.resize)
        features = apply(self.module, params, seen, method=self.method)
        check(
            features.shape == (len(images), self.width),
            f"The teacher {type(self.module).__name__} returns features of shape {list(features.shape)} for "
            f"{len(images)} images, not {[len(images), self.width]}: correct the row's width or the module.",
        )
        return features.astype(jnp.float32)

    def init(self, key: jax.Array) -> PyTree:
        """Returns random parameters (nested, float32), for benchmarks and compilation without published weights."""
        return self.module.init(key, jnp.zeros((1, self.image_size, self.image_size, 3)))["params"]


Teacher = HostTeacher | DeviceTeacher


def _row(function: Callable, *, width: int) -> HostTeacher:
    return HostTeacher(features=function, width=width)


teachers: Registry[Teacher] = Registry("teacher", _row)  # config field `teachers`


def host_teachers(names: Iterable[str | None]) -> dict[str, HostTeacher]:
    """Returns those of the named teachers that run in the data pipeline."""
    return _of_type(HostTeacher, names)


def device_teachers(names: Iterable[str | None], dtype: str) -> dict[str, DeviceTeacher]:
    """Returns those of the named teachers that run inside the step, computing in `dtype`."""
    return {name: teacher.with_dtype(dtype) for name, teacher in _of_type(DeviceTeacher, names).items()}


def _of_type(kind: type, names: Iterable[str | None]) -> dict:
    rows = {name: teachers[name] for name in names if name is not None}
    return {name: row for name, row in rows.items() if isinstance(row, kind)}


def needed_weights(names: Iterable[str | None]) -> list[str]:
    """Returns the names of the frozen networks whose weights the named teachers load."""
    rows = _of_type(DeviceTeacher, names).values()
    return [row.weights.name for row in rows if row.weights is not None]


def known_weights(names: Iterable[str | None]) -> dict[str, str]:
    """Returns the SHA-256 of the published weights of those named teachers whose weights are present."""
    rows = _of_type(DeviceTeacher, names).items()
    return {
        name: row.weights.published_sha256 for name, row in rows if row.weights is not None and row.weights.is_present
    }


def vit_teacher(weights: FrozenNetwork, *, family: Family, module: ViT) -> DeviceTeacher:
    """Returns the teacher of a vision transformer that is published on the hub.

    Args:
      weights: the row of its weights.
      family: how it is published.
      module: the network at its published sizes.
    """

    def load() -> PyTree:
        folder = find_weights(weights.name)
        found, params = load_vit(folder, family, image_size=module.image_size)
        if found != module.clone(dtype=found.dtype):
            raise UserError(
                f"{folder} holds another network than {weights.name}: fetch it again from {weights.repository}."
            )
        return params

    return DeviceTeacher(
        module=module,
        width=module.width,
        image_size=module.image_size,
        mean=family.mean,
        std=family.std,
        load=load,
        weights=weights,
    )


def _add_clip(name: str, sizes: dict[str, int], *, patch_size: int, megabytes: int) -> None:
    weights = FrozenNetwork(
        name=name,
        used_for="teacher",
        license="MIT",
        megabytes=megabytes,
        repository=f"openai/{name}",
        unused=("text_model.", "text_projection.", "visual_projection.", "logit_scale"),
    )
    networks.add(name, weights)
    teachers.add(name, vit_teacher(weights, family=CLIP, module=clip_vit(**sizes, patch_size=patch_size)))


def _add_dino(name: str, sizes: dict[str, int], *, megabytes: int, family: Family = DINOV2) -> None:
    weights = FrozenNetwork(
        name=name, used_for="teacher", license="Apache-2.0", megabytes=megabytes, repository=f"facebook/{name}"
    )
    networks.add(name, weights)
    module = dino_vit(**sizes, num_registers=4 if family is DINOV2_WITH_REGISTERS else 0)
    teachers.add(name, vit_teacher(weights, family=family, module=module))


_SMALL = {"width": 384, "depth": 12, "num_heads": 6}
_BASE = {"width": 768, "depth": 12, "num_heads": 12}
_LARGE = {"width": 1024, "depth": 24, "num_heads": 16}

teachers("hog", width=hog.WIDTH)(hog.hog_features)
teachers.add(
    efficientnet_lite.NAME,
    DeviceTeacher(
        module=efficientnet_lite.EfficientNetLite0(),
        method="features",
        width=efficientnet_lite.WIDTH,
        image_size=efficientnet_lite.SIZE,
        resize=bicubic,
        mean=efficientnet_lite.MEAN,
        std=efficientnet_lite.STD,
        load=efficientnet_lite.load_efficientnet_lite,
        weights=networks[efficientnet_lite.NAME],
    ),
)
_add_clip("clip-vit-base-patch16", _BASE, patch_size=16, megabytes=599)
_add_clip("clip-vit-base-patch32", _BASE, patch_size=32, megabytes=605)
_add_clip("clip-vit-large-patch14", _LARGE, patch_size=14, megabytes=1711)
_add_dino("dinov2-small", _SMALL, megabytes=88)
_add_dino("dinov2-base", _BASE, megabytes=346)
_add_dino("dinov2-large", _LARGE, megabytes=1217)
_add_dino("dinov2-with-registers-small", _SMALL, megabytes=88, family=DINOV2_WITH_REGISTERS)
_add_dino("dinov2-with-registers-base", _BASE, megabytes=346, family=DINOV2_WITH_REGISTERS)
_add_dino("dinov2-with-registers-large", _LARGE, megabytes=1217, family=DINOV2_WITH_REGISTERS)
