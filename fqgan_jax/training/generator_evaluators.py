"""What the training of a generator evaluates: its samples, in numbers and as a picture."""

import dataclasses
from functools import cached_property

import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from fqgan_jax.api import Tokenizer
from fqgan_jax.evaluation.generator import draw_samples, measure_generator
from fqgan_jax.evaluation.metrics import Reference
from fqgan_jax.evaluation.networks import EvaluationNetworks, load_networks
from fqgan_jax.evaluation.reference import open_reference
from fqgan_jax.models.far import FAR
from fqgan_jax.models.sampling import SamplingOptions
from fqgan_jax.pictures.figures import image_rows
from fqgan_jax.training import evaluators
from fqgan_jax.training.tasks import Pictures, Values

SHOWN_CLASSES = 8  # rows of the picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorContext:
    """What a generator's evaluators are given.

    Attributes:
      module: of the generator.
      tokenizer: decodes its codes.
      options: how codes are drawn.
      seed: of the samples' keys.
      count: samples that are measured; 0: none.
      per_class: samples of each class in the picture.
      reference_name: what the samples are compared with, statistics or images; empty: nothing.
      batch_size: of the global batch.
      num_threads: threads that read the reference's images.
    """

    module: FAR
    tokenizer: Tokenizer
    options: SamplingOptions
    seed: int
    count: int
    per_class: int
    reference_name: str
    batch_size: int
    num_threads: int

    @cached_property
    def networks(self) -> EvaluationNetworks:
        """The frozen networks of the metrics, loaded when they are first needed."""
        return evaluators.announce_missing(load_networks())

    @cached_property
    def reference(self) -> Reference | None:
        """What the samples are compared with; None without a name or an Inception network."""
        network = self.networks.inception
        if not self.reference_name or network is None:
            return None
        return open_reference(
            self.reference_name,
            network,
            size=self.tokenizer.image_size,
            batch_size=self.batch_size,
            num_threads=self.num_threads,
        )


@evaluators.generator("samples")
def evaluate_samples(context: GeneratorContext, params: PyTree, mesh: Mesh) -> tuple[Values, Pictures]:
    """Returns what `fqgan evaluate` measures, of new samples: gFID and others."""
    if context.count == 0:
        return {}, {}
    measured = measure_generator(
        context.module,
        params,
        context.tokenizer,
        count=context.count,
        seed=context.seed,
        options=context.options,
        reference=context.reference,
        networks=context.networks,
        batch_size=context.batch_size,
        mesh=mesh,
    )
    return measured.evaluation.results, {}


@evaluators.generator("pictures")
def show_samples(context: GeneratorContext, params: PyTree, mesh: Mesh) -> tuple[Values, Pictures]:
    """Returns a picture with a row of samples for each of the first classes."""
    classes = np.arange(min(SHOWN_CLASSES, context.module.num_classes), dtype=np.int32)
    labels = np.repeat(classes, context.per_class)
    drawn = draw_samples(
        context.module,
        params,
        labels,
        seed=context.seed,
        options=context.options,
        batch_size=len(labels),
        mesh=mesh,
    )
    images = np.asarray(context.tokenizer.decode(np.concatenate([rows["codes"] for rows in drawn])))
    return {}, {"samples": image_rows(images.reshape(len(classes), context.per_class, *images.shape[1:]))}
