"""Evaluation of a set of images."""

from fqgan_jax.errors import UserError
from fqgan_jax.evaluation.features import features_of
from fqgan_jax.evaluation.image_set import ImageSet
from fqgan_jax.evaluation.metrics import Reference
from fqgan_jax.evaluation.networks import EvaluationNetworks
from fqgan_jax.evaluation.protocol import Evaluation, Measurement
from fqgan_jax.evaluation.results import feature_results


def evaluate_images(
    images: ImageSet, *, reference: Reference | None, networks: EvaluationNetworks, batch_size: int
) -> Measurement:
    """Measures a set of images: FID, sFID, precision and recall against a reference, and the inception score.

    Raises:
      UserError: no image can be read.
    """
    features, count = None, len(images)
    if networks.features:
        features = features_of(images, networks.features, batch_size=batch_size, title="images")
        count = len(features)
        if count == 0:
            raise UserError(f"None of the images of {images.name} can be read. {images.skipped.report()}")
    results, missing = feature_results(features, reference, task="images", networks=networks)
    protocol = {"task": "images", "data": images.protocol(count)} | networks.protocol(reference)
    return Measurement(evaluation=Evaluation(results=results, missing=missing, protocol=protocol), features=features)
