"""What images are compared with: other images, or stored statistics (ours, or ADM's reference batches)."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from fqgan_jax.errors import UserError
from fqgan_jax.evaluation.features import FeatureNetwork, FeatureSet, features_of
from fqgan_jax.evaluation.image_set import open_images, read_arrays
from fqgan_jax.evaluation.metrics.frechet import Gaussian, frechet_distance
from fqgan_jax.evaluation.metrics.precision_recall import NEIGHBOURS, precision_recall
from fqgan_jax.files import write_atomically

MEASURES = ("fid", "sfid", "precision", "recall")


class Reference(NamedTuple):
    """The other side of a comparison.

    Attributes:
      pool: for FID.
      spatial: for sFID, None where the statistics lack it.
      features: for precision and recall, None where there are no images.
      protocol: where it comes from.
    """

    pool: Gaussian
    spatial: Gaussian | None
    features: Float[np.ndarray, "n d"] | None
    protocol: dict


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
    """Reads stored statistics (`mu`, `sigma`, and maybe `mu_s`, `sigma_s`), or takes features of images.

    Images beside statistics, as in ADM's reference batches, serve precision and recall alone.

    Raises:
      UserError: neither, or statistics of other weights.
    """
    stored = read_arrays(Path(name)) if name.endswith(".npz") else {}
    images = None
    if not stored or "arr_0" in stored:
        images = open_images(name, split=split, size=size, data_dir=data_dir, num_threads=num_threads)
        features = features_of(images, network, batch_size=batch_size, title="reference")
        protocol = images.protocol(len(features))
    if "mu" not in stored:
        if images is None:
            raise UserError(f"{name} holds neither images (arr_0) nor statistics (mu, sigma).")
        return reference_of(features, protocol)
    pool, spatial = _gaussian(stored, "mu", "sigma", name), None
    if "mu_s" in stored:
        spatial = _gaussian(stored, "mu_s", "sigma_s", name)
    statistics = {"name": name, "statistics": _stored_protocol(stored, network, name)}
    if images is None:
        return Reference(pool, spatial, None, statistics)
    return Reference(pool, spatial, features.features(), statistics | {"precision_recall_images": protocol})


def reference_of(features: FeatureSet, protocol: dict) -> Reference:
    """A set of images that others are compared with."""
    return Reference(features.pool(), features.spatial(), features.features(), protocol)


def _gaussian(stored: dict[str, np.ndarray], mean: str, covariance: str, name: str) -> Gaussian:
    found = Gaussian(*(np.asarray(stored.get(part, ()), np.float64) for part in (mean, covariance)))
    if found.mean.ndim != 1 or found.covariance.shape != found.mean.shape * 2 or not found.mean.size:
        shapes = f"{found.mean.shape} and {found.covariance.shape}"
        raise UserError(f"{name} holds {mean} and {covariance} of shapes {shapes}: they must be [d] and [d, d].")
    if not (np.isfinite(found.mean).all() and np.isfinite(found.covariance).all()):
        raise UserError(f"{name} holds {mean} and {covariance} that are not finite.")
    return found


def _stored_protocol(stored: dict[str, np.ndarray], network: FeatureNetwork, name: str) -> dict | str:
    if "protocol" not in stored:
        return "stored without its protocol"
    protocol = json.loads(str(stored["protocol"]))
    theirs = protocol["inception"]["sha256"]
    if theirs != network.sha256:
        raise UserError(
            f"The statistics {name} were taken with other Inception weights ({theirs[:8]}…, not "
            f"{network.sha256[:8]}…): store them again with --save-statistics."
        )
    return protocol


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


class Comparison(NamedTuple):
    """Numbers by name, and by name why one is missing."""

    results: dict[str, float]
    missing: dict[str, str]


def compare(features: FeatureSet, reference: Reference, measures: Sequence[str] = MEASURES) -> Comparison:
    """Fréchet distances from the reference, precision and recall, as far as the reference allows."""
    results, missing = {}, {}
    if "fid" in measures:
        results["fid"] = frechet_distance(features.pool(), reference.pool)
    if "sfid" in measures and reference.spatial:
        results["sfid"] = frechet_distance(features.spatial(), reference.spatial)
    elif "sfid" in measures:
        missing["sfid"] = "the reference's statistics have no mu_s and sigma_s"
    shares = [name for name in ("precision", "recall") if name in measures]
    if shares and reference.features is None:
        reason = "the reference holds statistics only; give its images (a folder, or an .npz with arr_0)"
        missing |= dict.fromkeys(shares, reason)
    elif shares and min(len(features), len(reference.features)) <= NEIGHBOURS:
        missing |= dict.fromkeys(shares, f"each set needs more than {NEIGHBOURS} images")
    elif shares:
        found = precision_recall(reference.features, features.features())
        results |= {name: getattr(found, name) for name in shares}
    return Comparison(results, missing)
