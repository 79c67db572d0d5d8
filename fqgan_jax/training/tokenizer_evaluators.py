"""What the training of a tokenizer evaluates: reconstructions of validation images, in numbers and as a picture."""

import dataclasses
from collections.abc import Callable
from functools import cached_property

from jax.sharding import Mesh
from jaxtyping import PyTree

from fqgan_jax.evaluation.features import features_of
from fqgan_jax.evaluation.image_set import ImageSet
from fqgan_jax.evaluation.metrics import Reference
from fqgan_jax.evaluation.networks import EvaluationNetworks, load_networks
from fqgan_jax.evaluation.reference import reference_of
from fqgan_jax.evaluation.tokenizer import measure_tokenizer, reconstructions
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.pictures.figures import image_rows
from fqgan_jax.training import evaluators
from fqgan_jax.training.tasks import Pictures, Values

SHOWN = 8  # images in the picture


@dataclasses.dataclass(kw_only=True)
class TokenizerContext:
    """What a tokenizer's evaluators are given.

    Attributes:
      module: of the tokenizer.
      open_images: opens the validation images; a run that evaluates nothing needs none.
      batch_size: of the global batch.
    """

    module: FQGAN
    open_images: Callable[[], ImageSet]
    batch_size: int
    _reference: Reference | None = dataclasses.field(default=None, init=False, repr=False)

    @cached_property
    def images(self) -> ImageSet:
        """The validation images, opened when they are first needed."""
        return self.open_images()

    @cached_property
    def networks(self) -> EvaluationNetworks:
        """The frozen networks of the metrics, loaded when they are first needed."""
        return evaluators.announce_missing(load_networks(reconstruction_metrics=True))

    def reference(self, mesh: Mesh) -> Reference | None:
        """Returns the features of the validation images, computed once; None without a network for them."""
        if self._reference is None and self.networks.features:
            features = features_of(
                self.images, self.networks.features, batch_size=self.batch_size, title="originals", mesh=mesh
            )
            self._reference = reference_of(features, {"name": "the same images"})
        return self._reference


@evaluators.tokenizer("reconstructions")
def evaluate_reconstructions(context: TokenizerContext, params: PyTree, mesh: Mesh) -> tuple[Values, Pictures]:
    """Returns what `fqgan evaluate` measures, on the validation images."""
    measured = measure_tokenizer(
        context.module,
        params,
        context.images,
        reference=context.reference(mesh),
        networks=context.networks,
        batch_size=context.batch_size,
        mesh=mesh,
    )
    return measured.evaluation.results, {}


@evaluators.tokenizer("pictures")
def show_reconstructions(context: TokenizerContext, params: PyTree, mesh: Mesh) -> tuple[Values, Pictures]:
    """Returns a picture of the first validation images above their reconstructions."""
    images = dataclasses.replace(context.images, limit=SHOWN)
    return {}, {"reconstructions": image_rows(reconstructions(context.module, params, images, mesh=mesh))}
