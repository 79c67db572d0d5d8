"""References for sets of images: other images, or stored statistics (this package's, or ADM's reference batches)."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from fqgan_jax.data.transforms import Size
from fqgan_jax.errors import UserError
from fqgan_jax.evaluation.features import FeatureNetworks, features_of
from fqgan_jax.evaluation.image_set import open_images, read_arrays
from fqgan_jax.evaluation.metrics import FeatureSet, Reference
from fqgan_jax.evaluation.metrics.frechet import Gaussian
from fqgan_jax.files import write_atomically
from fqgan_jax.storage import as_path

# Names of mean and covariance of each kind of features in stored statistics; ADM's for Inception's.
STORED_NAMES = {"pool": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s"), "lite0": ("mu_lite0", "sigma_lite0")}


def open_reference(
    name: str,
    networks: FeatureNetworks,
    *,
    size: Size,
    batch_size: int,
    split: str | None = None,
    data_dir: str | None = None,
    num_threads: int = 8,
) -> Reference:
    """Reads stored statistics (`mu`, `sigma`, and maybe those of other features), or computes features of images.

    Images beside statistics, as in ADM's reference batches, serve precision and recall only.

    Args:
      name: an `.npz` of statistics, or images (see `open_images`).
      networks: compute the features.
      size: of the centre crops, a side or (height, width).
      batch_size: size of the global batch.
      split: split of the images.
      data_dir: folder of prepared tensorflow-datasets; None uses their own default.
      num_threads: threads that read images.

    Raises:
      UserError: neither statistics nor images, or statistics of other weights.
    """
    stored = read_arrays(as_path(name)) if name.endswith(".npz") else {}
    has_statistics = any(mean in stored for mean, _ in STORED_NAMES.values())
    has_images = not stored or "arr_0" in stored
    statistics = _stored_statistics(stored, networks, name) if has_statistics else None
    if not has_images:
        if statistics is None:
            raise UserError(f"{name} holds neither images (arr_0) nor statistics (mu, sigma).")
        return statistics
    images = open_images(name, split=split, size=size, data_dir=data_dir, num_threads=num_threads)
    features = features_of(images, networks, batch_size=batch_size, title="reference")
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
    return Reference(gaussians=features.gaussians(), features=features.features(), protocol=protocol)


def save_statistics(path: Path, features: FeatureSet, protocol: dict) -> None:
    """Writes mean and covariance of each kind of features (`STORED_NAMES`, float64) and the protocol."""
    content = io.BytesIO()
    arrays: dict[str, Any] = {}
    for kind, gaussian in features.gaussians().items():
        mean, covariance = STORED_NAMES[kind]
        arrays |= {mean: gaussian.mean, covariance: gaussian.covariance}
    np.savez(content, **arrays, protocol=json.dumps(protocol))
    write_atomically(path, content.getvalue())


def _stored_statistics(stored: dict[str, np.ndarray], networks: FeatureNetworks, name: str) -> Reference:
    gaussians = {
        kind: _gaussian(stored, *names, name=name) for kind, names in STORED_NAMES.items() if names[0] in stored
    }
    protocol = {"name": name, "statistics": _stored_protocol(stored, networks, name)}
    return Reference(gaussians=gaussians, features=None, protocol=protocol)


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


def _stored_protocol(stored: dict[str, np.ndarray], networks: FeatureNetworks, name: str) -> dict | str:
    if "protocol" not in stored:
        return "stored without its protocol"
    try:
        protocol = dict(json.loads(str(stored["protocol"])))
        known = {title: str(protocol[title]["sha256"]) for title in networks if title in protocol}
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{name} holds a damaged protocol: store the statistics again.") from error
    for title, network in networks.items():
        sha256 = known.get(title, network.sha256)
        if sha256 != network.sha256:
            raise UserError(
                f"The statistics {name} were computed with other weights of {title} ({sha256[:8]}…, not "
                f"{network.sha256[:8]}…): store them again with --save-statistics."
            )
    return protocol
