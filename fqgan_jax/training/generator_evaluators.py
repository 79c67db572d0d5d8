"""What the training of a generator evaluates: held-out codes, and its samples, in numbers and as pictures."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property, partial

import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from fqgan_jax.api import Tokenizer
from fqgan_jax.caches.codes import CodeCache, held_out_batches
from fqgan_jax.evaluation.generator import draw_samples, measure_generator
from fqgan_jax.evaluation.held_out import measure_held_out
from fqgan_jax.evaluation.metrics import Reference
from fqgan_jax.evaluation.networks import EvaluationNetworks, load_networks
from fqgan_jax.evaluation.reference import open_reference
from fqgan_jax.models.far import FAR
from fqgan_jax.models.sampling_options import SamplingOptions
from fqgan_jax.pictures.figures import image_rows
from fqgan_jax.pictures.held_out import held_out_picture
from fqgan_jax.training import evaluators
from fqgan_jax.training.tasks import Pictures, Values

SHOWN_CLASSES = 8  # rows of the picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorContext:
    """What a generator's evaluators are given.

    Attributes:
      module: of the generator.
      class_names: names of its classes.
      held_out: codes that it is not trained on; None: there are none.
      tokenizer: decodes its codes; None: the config names none.
      options: how codes are drawn.
      seed: of the samples' keys.
      count: samples that are measured; 0: none.
      per_class: samples of each class in the picture.
      reference_name: what the samples are compared with, statistics or images; empty: nothing.
      batch_size: of the global batch.
      num_threads: threads that read the reference's images.
    """

    module: FAR
    class_names: Sequence[str]
    held_out: CodeCache | None
    tokenizer: Tokenizer | None
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
        """What the samples are compared with; None without a name, a tokenizer or a network that describes images."""
        networks = self.networks.features
        if self.tokenizer is None or not self.reference_name or not networks:
            return None
        return open_reference(
            self.reference_name,
            networks,
            size=self.tokenizer.image_size,
            batch_size=self.batch_size,
            num_threads=self.num_threads,
        )


@evaluators.generator("held_out")
def evaluate_held_out(context: GeneratorContext, params: PyTree, mesh: Mesh) -> tuple[Values, Pictures]:
    """Returns loss and perplexity of held-out codes, and a picture of where and in which classes they are highest."""
    cache = context.held_out
    if cache is None:
        return {}, {}
    held_out = measure_held_out(
        context.module,
        params,
        partial(held_out_batches, cache),
        count=len(cache) * cache.manifest.crops,
        batch_size=context.batch_size,
        mesh=mesh,
    )
    return held_out.results(), {"held_out": held_out_picture(held_out, context.class_names)}


@evaluators.generator("samples")
def evaluate_samples(context: GeneratorContext, params: PyTree, mesh: Mesh) -> tuple[Values, Pictures]:
    """Returns what `fqgan evaluate` measures, of new samples: gFID and others."""
    if context.tokenizer is None or context.count == 0:
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
    if context.tokenizer is None:
        return {}, {}
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
    return {}, {"samples": image_rows(list(images.reshape(len(classes), context.per_class, *images.shape[1:])))}
