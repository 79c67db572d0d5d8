"""Metrics, each a row of one of three tables: of reconstructions, of sets of images by their features, and of codes.

A metric of your own is a function in a file that the config imports or that `--plugin` names:

    from fqgan_jax.evaluation import metrics

    @metrics.reconstruction("l1", better="lower")
    def l1(reconstruction, original):
        return jnp.mean(jnp.abs(reconstruction - original), axis=(1, 2, 3))

`fqgan evaluate` then prints and stores it, and training logs it as `validation/l1`.
"""

from fqgan_jax.evaluation.metrics.codebooks import CodeSet
from fqgan_jax.evaluation.metrics.feature_metrics import FeatureSet, ImageFeatures, Reference
from fqgan_jax.evaluation.metrics.reconstruction_metrics import lpips, psnr, ssim
from fqgan_jax.evaluation.metrics.tables import (
    CodeMetric,
    FeatureMetric,
    NotMeasuredError,
    ReconstructionMetric,
    code,
    feature,
    how_to_read,
    reconstruction,
)

__all__ = [
    "CodeMetric",
    "CodeSet",
    "FeatureMetric",
    "FeatureSet",
    "ImageFeatures",
    "NotMeasuredError",
    "ReconstructionMetric",
    "Reference",
    "code",
    "feature",
    "how_to_read",
    "lpips",
    "psnr",
    "reconstruction",
    "ssim",
]
