"""PSNR and SSIM against scikit-image."""

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fqgan_jax.evaluation.metrics import psnr, ssim


def test_psnr_and_ssim():
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    noisy = np.clip(images + 0.2 * rng.standard_normal(images.shape), -1, 1).astype(np.float32)
    for i in range(2):
        first, second = (images[i] + 1) / 2, (noisy[i] + 1) / 2
        np.testing.assert_allclose(
            psnr(images, noisy)[i], peak_signal_noise_ratio(first, second, data_range=1), rtol=1e-4
        )
        _, full = structural_similarity(
            first, second, data_range=1, channel_axis=-1, full=True,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )  # fmt: skip
        # Only windows that lie inside the image count, as in the original definition.
        np.testing.assert_allclose(ssim(images, noisy)[i], full[5:-5, 5:-5].mean(), rtol=1e-4)
