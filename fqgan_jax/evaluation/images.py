"""Evaluation of a set of images."""

from fqgan_jax.errors import UserError
from fqgan_jax.evaluation.features import Measured, features_of
from fqgan_jax.evaluation.image_set import ImageSet
from fqgan_jax.evaluation.networks import EvaluationNetworks, feature_results
from fqgan_jax.evaluation.protocol import Evaluation
from fqgan_jax.evaluation.reference import MEASURES, Reference


def evaluate_images(
    images: ImageSet, *, reference: Reference | None, networks: EvaluationNetworks, batch_size: int
) -> Measured:
    """FID, sFID, precision and recall against a reference, and the inception score.

    Raises:
      UserError: not one image can be read.
    """
    features = None
    if networks.inception:
        features = features_of(images, networks.inception, batch_size=batch_size, title="images")
        if not len(features):
            raise UserError(f"None of the images of {images.name} can be read. {images.skipped.report()}")
    results, missing = feature_results(features, reference, MEASURES, networks)
    data = images.protocol(len(images) if features is None else len(features))
    protocol = {"task": "images", "data": data} | networks.protocol(reference)
    return Measured(Evaluation(results, missing, protocol), features)
