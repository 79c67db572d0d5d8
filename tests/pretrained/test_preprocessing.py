"""What frozen networks see of images."""

import jax
import numpy as np
import pytest
from PIL import Image

from fqgan_jax.pretrained.preprocessing import bicubic, preprocess


@pytest.mark.parametrize("size", [(256, 256), (32, 48), (300, 224)])
def test_preprocess_picks_the_nearest_pixel_and_normalizes(size):
    images = np.random.default_rng(0).uniform(-1, 1, (2, *size, 3)).astype(np.float32)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    seen = jax.jit(lambda images: preprocess(images, mean=mean, std=std))(images)
    assert seen.shape == (2, 224, 224, 3)
    for i, j in ((0, 0), (7, 133), (223, 223), (112, 49)):
        pixel = images[:, i * size[0] // 224, j * size[1] // 224]
        np.testing.assert_allclose(seen[:, i, j], ((pixel + 1) / 2 - mean) / std, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 48), (300, 224), (500, 333)])
def test_bicubic_is_pillows(size):
    images = np.random.default_rng(0).uniform(-1, 1, (2, *size, 3)).astype(np.float32)
    resized = bicubic(images, 224)
    for image, found in zip(images, resized, strict=True):
        for channel in range(3):
            expected = Image.fromarray(image[..., channel]).resize((224, 224), Image.Resampling.BICUBIC)
            np.testing.assert_allclose(found[..., channel], expected, atol=1e-4)
