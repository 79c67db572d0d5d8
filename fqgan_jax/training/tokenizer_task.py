"""The task of training a tokenizer: its state, batches and evaluations. The step itself is in `tokenizer_step`."""

import dataclasses
import itertools
from collections.abc import Iterator
from functools import cached_property, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import PyTree

from fqgan_jax.caches.teacher_features import FeatureCache, feature_batches
from fqgan_jax.checkpoints import ModelDescription
from fqgan_jax.config import tokenizer_defaults
from fqgan_jax.data.loader import image_batches, to_devices
from fqgan_jax.data.pixels import to_float
from fqgan_jax.data.skipping import largest_skipped
from fqgan_jax.data.sources import Source, open_source, source_state
from fqgan_jax.data.stream import Batch, Stream
from fqgan_jax.data.transforms import Size, height_and_width
from fqgan_jax.errors import check
from fqgan_jax.evaluation.image_set import ImageSet
from fqgan_jax.evaluation.metrics.codebooks import CodeUsage
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.pretrained.teachers import device_teachers, host_teachers, known_weights, needed_weights
from fqgan_jax.pretrained.weights import check_fetched
from fqgan_jax.sharding.mesh import WHOLE_BATCH, BatchSlice, batch_sharding, batch_slice
from fqgan_jax.storage import as_path
from fqgan_jax.training import evaluators
from fqgan_jax.training.evaluators import with_periods
from fqgan_jax.training.from_config import (
    check_batch_parts,
    image_size,
    learning_rates,
    perceptual_network,
    tokenizer_fields,
    tokenizer_training,
)
from fqgan_jax.training.kmeans import codebooks_from_latents
from fqgan_jax.training.metrics import Metrics, average
from fqgan_jax.training.optimizers import check_fixed
from fqgan_jax.training.state import Adversary, TrainState, create_state
from fqgan_jax.training.tasks import Evaluator, Task, tasks
from fqgan_jax.training.tokenizer_evaluators import TokenizerContext
from fqgan_jax.training.tokenizer_step import TokenizerBatch, in_parts, tokenizer_step


@tasks("tokenizer")
class TokenizerTask(Task):
    """Trains a tokenizer on images; see `Task`."""

    kind = "tokenizer"
    headline = "reconstruction"  # the metric beside the progress bar

    defaults = staticmethod(tokenizer_defaults)

    def __init__(self, config, num_devices: int):
        super().__init__(config, num_devices)
        self.fields = tokenizer_fields(config)
        check_batch_parts(config, num_devices)
        self.features = self._open_features() if config.data.features else None
        # Cached features take the place of the networks.
        self.teachers = device_teachers(config.teachers, config.frozen_dtype) if self.features is None else {}
        self.perceptual = perceptual_network(config)
        self.training = tokenizer_training(config, self.fields, num_devices=num_devices, perceptual=self.perceptual)
        self.module: FQGAN = self.training.module

    def _open_features(self) -> FeatureCache:
        """Opens the teachers' cached features.

        Raises:
          UserError: they do not belong to this config.
        """
        config, cache = self.config, FeatureCache(as_path(self.config.data.features))
        teachers = list(filter(None, dict.fromkeys(config.teachers)))
        cache.check(
            teachers,
            image_size=config.data.image_size,
            full_decode=config.data.full_decode,
            weights=known_weights(teachers),
        )
        return cache

    @cached_property
    def train_source(self) -> Source:
        """The training images.

        Raises:
          UserError: they are missing, or the cached features describe other images.
        """
        source = self._open("train")
        if self.features is not None:
            self.features.check_source(source, self.config.data.source, "train")
        return source

    def _open(self, split: str) -> Source:
        data = self.config.data
        return open_source(
            data.source, split, validation_fraction=data.validation_fraction, data_dir=data.data_dir or None
        )

    def learning_rates(self, num_steps: int) -> dict[str, optax.Schedule]:
        """Returns the learning rates of the tokenizer and, if there is one, of the discriminator."""
        return learning_rates(self.config, num_steps)

    def evaluators(self) -> dict[str, Evaluator]:
        """Returns the rows of `evaluators.tokenizer`, on validation images."""
        return self._evaluators

    @cached_property
    def _evaluators(self) -> dict[str, Evaluator]:
        context = TokenizerContext(
            module=self.module, open_images=self._validation_images, batch_size=self.config.data.batch_size
        )
        return with_periods(
            evaluators.tokenizer,
            context,
            periods=dict(self.config.evaluation),
            evaluate_every=self.config.train.evaluate_every,
        )

    def _validation_images(self) -> ImageSet:
        data = self.config.data
        return ImageSet(
            name=data.source,
            split="validation",
            source=self._open("validation"),
            size=image_size(data),
            limit=self.config.train.evaluate_count or None,
            skipped=self.skipped,
            num_threads=data.num_threads,
        )

    def description(self) -> ModelDescription:
        """Returns what `model.json` says of the tokenizer."""
        return ModelDescription(kind=self.kind, fields=self.fields, class_names=tuple(self.train_source.class_names))

    def data_state(self, verify: str) -> str:
        """Returns the state of the training images, and of the cached features."""
        cached = "" if self.features is None else self.features.state
        return source_state(self.train_source, verify) + cached

    def frozen(self) -> PyTree:
        """Returns the parameters of the teachers and of the perceptual network.

        Raises:
          UserError: weights are missing from the cache, or damaged.
        """
        check_fetched([*needed_weights(self.teachers), *(self.perceptual.weights if self.perceptual else ())])
        teachers = {name: teacher.load() for name, teacher in self.teachers.items()}
        return {"teachers": teachers} | ({"perceptual": self.perceptual.load()} if self.perceptual else {})

    def random_frozen(self, key: jax.Array) -> PyTree:
        """Returns random numbers of the shapes of `frozen`."""
        teachers = {name: teacher.init(key) for name, teacher in self.teachers.items()}
        return {"teachers": teachers} | ({"perceptual": self.perceptual.init(key)} if self.perceptual else {})

    def init(self, key: jax.Array) -> TrainState:
        """Returns the state before the first step."""
        training = self.training
        images = jnp.zeros((1, *height_and_width(image_size(self.config.data)), 3))
        adversary = None
        if training.adversarial is not None:
            params = training.adversarial.module.init(jax.random.fold_in(key, 1), images)["params"]
            opt_state = training.adversarial.tx.init(params)
            adversary = Adversary(params=params, opt_state=opt_state, average_logits=jnp.zeros(2))
        params = self.module.init(key, images)["params"]
        check_fixed(params, training.fixed)
        return create_state(
            params,
            training.tx,
            with_ema=training.ema_decay > 0,
            adversary=adversary,
            idle=self._idle_counters(params) if training.reseed_after else None,
        )

    def first_state(self, state: TrainState, mesh: Mesh) -> TrainState:
        """Returns the state with codebooks that begin as the centres of latents, if the config says so."""
        count = self.config.kmeans_batches
        if not count:
            return state
        check(
            "codebooks" in state.params.get("quantizer", {}),
            f"kmeans_batches={count} moves codebook entries, but model.quantizer={self.module.quantizer!r} has none of "
            "its own: set kmeans_batches=0.",
        )
        params = codebooks_from_latents(
            self.module,
            state.params,
            itertools.islice(to_devices(self.batches(0, batch_slice(mesh)), batch_sharding(mesh)), count),
            key=jax.random.fold_in(jax.random.key(self.config.seed), 1),
        )
        ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
        return dataclasses.replace(state, params=params, ema=ema)

    def warm_parts(self) -> tuple[nn.Module, tuple[nn.Module, Size] | None]:
        """Returns the tokenizer, and its discriminator if it has one."""
        adversarial = self.training.adversarial
        return self.module, None if adversarial is None else (adversarial.module, image_size(self.config.data))

    def _idle_counters(self, params: PyTree) -> jax.Array:
        """Per codebook entry, the steps since it was last used; before the first step, zeros."""
        codebooks = params.get("quantizer", {}).get("codebooks")
        check(
            codebooks is not None,
            f"reseed_after={self.config.reseed_after} moves unused codebook entries, but "
            f"model.quantizer={self.module.quantizer!r} has no codebooks: set reseed_after=0.",
        )
        return jnp.zeros(codebooks.shape[:2], jnp.int32)

    def random_batch(self, key: jax.Array) -> dict[str, jax.Array]:
        """Returns a global batch of noise with the shapes of `batches`."""
        count, shape = self.config.data.batch_size, (*height_and_width(image_size(self.config.data)), 3)
        batch = {"image": jax.random.bits(key, (count, *shape), jnp.uint8), "label": jnp.zeros(count, jnp.int32)}
        widths = zip(self.config.teachers, self.fields["feature_widths"], strict=True)
        given = {name: width for name, width in widths if name and name not in self.teachers}
        return batch | {f"feature/{name}": jnp.ones((count, width)) for name, width in sorted(given.items())}

    def batches(self, start_step: int, batch_slice: BatchSlice = WHOLE_BATCH) -> Iterator[Batch]:
        """Yields this host's share of the batches from a step on."""
        data = self.config.data
        self.skipped.limit = largest_skipped(len(self.train_source), data.largest_skipped_fraction)
        stream = Stream(
            batch_size=data.batch_size,
            seed=self.config.seed,
            start_step=start_step,
            batch_slice=batch_slice,
            num_threads=data.num_threads,
            num_workers=data.num_workers,
        )
        if self.features is not None:
            teachers = sorted(set(filter(None, self.config.teachers)))
            return feature_batches(self.train_source, self.features, stream, teachers=teachers, skipped=self.skipped)
        return image_batches(
            self.train_source,
            stream,
            image_size=image_size(data),
            skipped=self.skipped,
            feature_functions={
                name: teacher.features for name, teacher in sorted(host_teachers(self.config.teachers).items())
            },
            full_decode=data.full_decode,
        )

    def step(self, state: TrainState, frozen: PyTree, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        """Makes one update; pure. See `tokenizer_step`."""
        images = to_float(batch["image"])
        step_batch = TokenizerBatch(images=images, targets=self._targets(frozen, batch, images))
        state, values = tokenizer_step(state, frozen, step_batch, training=self.training)
        kept = values.pop("kept", jnp.ones(self.module.num_codebooks))
        codes = CodeUsage.from_codes(values.pop("codes"), self.module.codebook_size, kept)
        return state, {name: average(value, self._counts(value, kept)) for name, value in values.items()} | {
            "codes": codes
        }

    def _counts(self, value: jax.Array, kept: jax.Array) -> jax.Array | float:
        """What a metric of a step counts in the average: one per sub-codebook, or per teacher, if it is kept."""
        taught = np.array([name is not None for name in self.config.teachers])
        masks = {len(kept[taught]): kept[taught], len(kept): kept}
        return masks[value.size] if value.ndim and value.size in masks else 1.0

    def _targets(self, frozen: PyTree, batch: dict[str, jax.Array], images: jax.Array) -> list[jax.Array | None]:
        """Per sub-codebook, its teacher's features: of a network that runs here, or as the batch brings them."""
        features = {
            name: in_parts(partial(teacher.features, frozen["teachers"][name]), self.training.accumulate)(images)
            for name, teacher in self.teachers.items()
        }
        features |= {key.removeprefix("feature/"): value for key, value in batch.items() if key.startswith("feature/")}
        return [features.get(name) for name in self.config.teachers]
