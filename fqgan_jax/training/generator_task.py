"""The task of training a generator: its state, batches and evaluations. The step itself is in `generator_step`."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from fqgan_jax import api
from fqgan_jax.caches.codes import CodeCache, CodesManifest, code_batches
from fqgan_jax.checkpoints import ModelDescription
from fqgan_jax.config import generator_defaults
from fqgan_jax.data.stream import Batch, Stream
from fqgan_jax.errors import UserError, check
from fqgan_jax.models.sampling import sampling_options
from fqgan_jax.sharding.mesh import WHOLE_BATCH, BatchSlice
from fqgan_jax.training import evaluators
from fqgan_jax.training.evaluators import with_periods
from fqgan_jax.training.from_config import generator_fields, generator_training, learning_rates, tokenizer_fields
from fqgan_jax.training.generator_evaluators import GeneratorContext
from fqgan_jax.training.generator_step import generator_step
from fqgan_jax.training.metrics import Metrics, average
from fqgan_jax.training.optimizers import check_fixed
from fqgan_jax.training.state import TrainState, create_state
from fqgan_jax.training.tasks import Evaluator, Task, tasks

IMAGENET_CLASSES = 1000


@tasks("generator")
class GeneratorTask(Task):
    """Trains a generator on a code cache; see `Task`."""

    kind = "generator"
    defaults = staticmethod(generator_defaults)

    def __init__(self, config, num_devices: int, manifest: CodesManifest | None = None):
        """Opens the config's code cache, unless a `manifest` gives its sizes (plans and benchmarks read no codes)."""
        super().__init__(config, num_devices)
        if manifest is None:
            check(bool(config.data.codes), "data.codes is empty: name the folder that fqgan tokenize wrote.")
            self.cache = CodeCache(Path(config.data.codes))
            manifest = self.cache.manifest
        self.manifest = manifest
        self.fields = generator_fields(
            config,
            num_codebooks=manifest.num_codebooks,
            codebook_size=manifest.codebook_size,
            num_classes=len(manifest.class_names),
            grid=manifest.grid,
        )
        self.training = generator_training(config, self.fields)
        self.module = self.training.module
        self.tokenizer = self._load_tokenizer(config.sample.tokenizer)

    @classmethod
    def without_data(cls, config, num_shards: int, *, tokenizer_config=None) -> "GeneratorTask":
        """Returns a task for the config's code cache, or if it names none for ImageNet's codes by a tokenizer."""
        manifest = None if config.data.codes else imagenet_manifest(tokenizer_config)
        return cls(config, num_shards, manifest)

    def learning_rates(self, num_steps: int) -> dict[str, optax.Schedule]:
        """Returns the learning rate of the only optimizer."""
        return learning_rates(self.config, num_steps)

    def evaluators(self) -> dict[str, Evaluator]:
        """Returns the rows of `evaluators.generator`; none without a tokenizer that decodes samples."""
        return self._evaluators

    @cached_property
    def _evaluators(self) -> dict[str, Evaluator]:
        if self.tokenizer is None:
            return {}
        sample = self.config.sample
        context = GeneratorContext(
            module=self.module,
            tokenizer=self.tokenizer,
            options=sampling_options(
                self.module.num_codebooks,
                guidance=sample.guidance,
                temperature=sample.temperature,
                top_k=sample.top_k,
                top_p=sample.top_p,
            ),
            seed=self.config.seed,
            count=sample.count,
            per_class=sample.per_class,
            reference_name=sample.reference,
            batch_size=self.config.data.batch_size,
            num_threads=self.config.data.num_threads,
        )
        return with_periods(
            evaluators.generator,
            context,
            periods=dict(self.config.evaluation),
            evaluate_every=self.config.train.evaluate_every,
        )

    def _load_tokenizer(self, path: str) -> "api.Tokenizer | None":
        """Loads the tokenizer that decodes samples; None if the config names none.

        Raises:
          UserError: another tokenizer wrote the code cache.
        """
        if not path:
            return None
        tokenizer = api.load_tokenizer(path)
        if tokenizer.module.nested and self.manifest.num_codebooks < tokenizer.module.num_codebooks:
            tokenizer = tokenizer.first(self.manifest.num_codebooks)
        if tokenizer.fingerprint != self.manifest.tokenizer:
            raise UserError(
                f"The code cache {self.config.data.codes} was written by another tokenizer than {path}: "
                "tokenize again with this one, or name the one that wrote it."
            )
        return tokenizer

    def description(self) -> ModelDescription:
        """Returns what `model.json` says of the generator."""
        return ModelDescription(
            kind=self.kind,
            fields=self.fields,
            class_names=tuple(self.manifest.class_names),
            tokenizer=self.manifest.tokenizer,
        )

    def init(self, key: jax.Array) -> TrainState:
        """Returns the state before the first step."""
        positions = self.module.grid[0] * self.module.grid[1]
        codes = jnp.zeros((1, positions, self.module.num_codebooks), jnp.int32)
        params = self.module.init(key, codes, jnp.zeros(1, jnp.int32))["params"]
        check_fixed(params, self.training.fixed)
        return create_state(params, self.training.tx, with_ema=self.training.ema_decay > 0)

    def warm_parts(self) -> tuple[nn.Module, None]:
        """Returns the generator."""
        return self.module, None

    def batches(self, start_step: int, batch_slice: BatchSlice = WHOLE_BATCH) -> Iterator[Batch]:
        """Yields this host's share of the batches from a step on."""
        stream = Stream(
            batch_size=self.config.data.batch_size,
            seed=self.config.seed,
            start_step=start_step,
            batch_slice=batch_slice,
            num_threads=self.config.data.num_threads,
        )
        return code_batches(self.cache, stream)

    def random_batch(self, key: jax.Array) -> Batch:
        """Returns a global batch of random codes with the shapes of `batches`."""
        shape = (self.config.data.batch_size, *self.module.grid, self.module.num_codebooks)
        codes = jax.random.randint(key, shape, 0, self.module.codebook_size)
        return {"codes": codes, "label": jnp.zeros(len(codes), jnp.int32)}

    def step(self, state: TrainState, frozen: PyTree, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        """Makes one update; pure. See `generator_step`."""
        del frozen
        state, values = generator_step(state, batch, training=self.training)
        return state, {name: average(value) for name, value in values.items()}


def imagenet_manifest(tokenizer_config) -> CodesManifest:
    """Returns the manifest that a code cache of ImageNet by a config's tokenizer would have."""
    fields = tokenizer_fields(tokenizer_config)
    return CodesManifest(
        tokenizer="",
        num_codebooks=fields["num_codebooks"],
        codebook_size=fields["codebook_size"],
        grid=fields["grid"],
        crops=1,
        kind="center",
        seed=0,
        class_names=("",) * IMAGENET_CLASSES,
    )
