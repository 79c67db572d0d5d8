"""Caches of the outputs of frozen networks for a source's images: a tokenizer's codes, and teachers' features.

`tokenize.tokenize` and `extract_features.extract_features` write them.
"""

from fqgan_jax.caches.codes import CodeCache, CodesManifest, code_batches
from fqgan_jax.caches.teacher_features import FeatureCache, feature_batches
from fqgan_jax.caches.write_shards import PassSettings

__all__ = ["CodeCache", "CodesManifest", "FeatureCache", "PassSettings", "code_batches", "feature_batches"]
