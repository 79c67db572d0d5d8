"""References for sets of images: other images, or stored statistics (this package's, or ADM's reference batches)."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np

from fqgan_jax.errors import UserError
from fqgan_jax.evaluation.features import FeatureNetwork, features_of
from fqgan_jax.evaluation.image_set import open_images, read_arrays
from fqgan_jax.evaluation.metrics import FeatureSet, Reference
from fqgan_jax.evaluation.metrics.frechet import Gaussian
from fqgan_jax.files import write_atomically


def open_reference(
    name: str,
    network: FeatureNetwork,
    *,
    size: int,
    batch_size: int,
    split: str | None = None,
    data_dir: str | None = None,
    num_threads: int = 8,
) -> Reference:
    """Reads stored statistics (`mu`, `sigma`, and maybe `mu_s`, `sigma_s`), or computes features of images.

    Images beside statistics, as in ADM's reference batches, serve precision and recall only.

    Args:
      name: an `.npz` of statistics, or images (see `open_images`).
      network: computes the features.
      size: side of the centre crops.
      batch_size: size of the global batch.
      split: split of the images.
      data_dir: folder of prepared tensorflow-datasets; None uses their own default.
      num_threads: threads that read images.

    Raises:
      UserError: neither statistics nor images, or statistics of other weights.
    """
    stored = read_arrays(Path(name)) if name.endswith(".npz") else {}
    has_statistics, has_images = "mu" in stored, not stored or "arr_0" in stored
    if not (has_statistics or has_images):
        raise UserError(f"{name} holds neither images (arr_0) nor statistics (mu, sigma).")
    statistics = _stored_statistics(stored, network, name) if has_statistics else None
    if not has_images:
        return statistics
    images = open_images(name, split=split, size=size, data_dir=data_dir, num_threads=num_threads)
    features = features_of(images, network, batch_size=batch_size, title="reference")
    protocol = images.protocol(len(features))
    if statistics is None:
        return reference_of(features, protocol)
    return dataclasses.replace(
        statistics,
        features=features.features(),
        protocol=statistics.protocol | {"precision_recall_images": protocol},
    )


def reference_of(features: FeatureSet, protocol: dict) -> Reference:
    """Makes a reference of a set of images.

    Raises:
      UserError: fewer than two images.
    """
    return Reference(pool=features.pool(), spatial=features.spatial(), features=features.features(), protocol=protocol)


def save_statistics(path: Path, features: FeatureSet, protocol: dict) -> None:
    """Writes `mu`, `sigma`, `mu_s`, `sigma_s` (ADM's names, float64) and the protocol."""
    pool, spatial = features.pool(), features.spatial()
    content = io.BytesIO()
    np.savez(
        content,
        mu=pool.mean,
        sigma=pool.covariance,
        mu_s=spatial.mean,
        sigma_s=spatial.covariance,
        protocol=json.dumps(protocol),
    )
    write_atomically(path, content.getvalue())


def _stored_statistics(stored: dict[str, np.ndarray], network: FeatureNetwork, name: str) -> Reference:
    pool, spatial = _gaussian(stored, "mu", "sigma", name=name), None
    if "mu_s" in stored:
        spatial = _gaussian(stored, "mu_s", "sigma_s", name=name)
    protocol = {"name": name, "statistics": _stored_protocol(stored, network, name)}
    return Reference(pool=pool, spatial=spatial, features=None, protocol=protocol)


def _gaussian(stored: dict[str, np.ndarray], mean_name: str, covariance_name: str, *, name: str) -> Gaussian:
    mean, covariance = (np.asarray(stored.get(part, ()), np.float64) for part in (mean_name, covariance_name))
    if mean.ndim != 1 or covariance.shape != mean.shape * 2 or not mean.size:
        raise UserError(
            f"{name} holds {mean_name} and {covariance_name} of shapes {mean.shape} and {covariance.shape}: "
            "they must be [d] and [d, d]."
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{name} holds {mean_name} and {covariance_name} that are not finite.")
    return Gaussian(mean, covariance)


def _stored_protocol(stored: dict[str, np.ndarray], network: FeatureNetwork, name: str) -> dict | str:
    if "protocol" not in stored:
        return "stored without its protocol"
    protocol = json.loads(str(stored["protocol"]))
    sha256 = protocol["inception"]["sha256"]
    if sha256 != network.sha256:
        raise UserError(
            f"The statistics {name} were computed with other Inception weights ({sha256[:8]}…, not "
            f"{network.sha256[:8]}…): store them again with --save-statistics."
        )
    return protocol
