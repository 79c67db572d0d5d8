"""The task of training a generator: its state, batches and evaluations. The step itself is in `generator_step`."""

import dataclasses
from collections.abc import Iterator
from functools import cached_property

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Float, PyTree

from fqgan_jax import api
from fqgan_jax.caches.codes import MANIFEST, VALIDATION, CodeCache, CodesManifest, code_batches
from fqgan_jax.checkpoints import ModelDescription
from fqgan_jax.config import generator_defaults
from fqgan_jax.data.stream import Batch, Stream
from fqgan_jax.errors import UserError, check
from fqgan_jax.models.applying import apply
from fqgan_jax.models.far import FAR
from fqgan_jax.models.sampling_options import sampling_options
from fqgan_jax.sharding.mesh import WHOLE_BATCH, BatchSlice, put_global
from fqgan_jax.storage import as_path
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

    def __init__(self, config, num_devices: int, manifest: CodesManifest | None = None, *, entry_dim: int = 0):
        """Opens the config's code cache, unless a `manifest` gives its sizes (plans and benchmarks read no codes).

        Args:
          config: the whole config.
          num_devices: parts into which devices split a batch.
          manifest: sizes of the codes, if none are read.
          entry_dim: width of the tokenizer's entries, if none is read.
        """
        super().__init__(config, num_devices)
        self.cache = self.held_out = None
        if manifest is None:
            self.cache, self.held_out = open_codes(config.data)
            manifest = self.cache.manifest
        self.manifest = manifest
        self.tokenizer = self._load_tokenizer(config.sample.tokenizer)
        self.fields = generator_fields(
            config,
            num_codebooks=manifest.num_codebooks,
            codebook_size=manifest.codebook_size,
            num_classes=len(manifest.class_names),
            grid=manifest.grid,
            entry_dim=self._entry_dim(entry_dim),
        )
        self.training = generator_training(config, self.fields)
        self.module: FAR = self.training.module

    @classmethod
    def without_data(cls, config, num_shards: int, *, tokenizer_config=None) -> "GeneratorTask":
        """Returns a task for the config's code cache, or if it names none for ImageNet's codes by a tokenizer."""
        if config.data.codes:
            return cls(config, num_shards)
        entry_dim = tokenizer_config.model.code_dim
        return cls(config, num_shards, imagenet_manifest(tokenizer_config), entry_dim=entry_dim)

    def learning_rates(self, num_steps: int) -> dict[str, optax.Schedule]:
        """Returns the learning rate of the only optimizer."""
        return learning_rates(self.config, num_steps)

    def data_state(self, verify: str) -> str:
        """Returns the state of the codes, whose manifest holds a checksum of every file."""
        del verify
        return "" if self.cache is None else self.cache.state

    def evaluators(self) -> dict[str, Evaluator]:
        """Returns the rows of `evaluators.generator`."""
        return self._evaluators

    @cached_property
    def _evaluators(self) -> dict[str, Evaluator]:
        sample = self.config.sample
        context = GeneratorContext(
            module=self.module,
            class_names=self.manifest.class_names,
            held_out=self.held_out,
            tokenizer=self.tokenizer,
            options=sampling_options(
                self.module.num_codebooks,
                guidance=sample.guidance,
                temperature=sample.temperature,
                top_k=sample.top_k,
                top_p=sample.top_p,
                min_p=sample.min_p,
                guidance_schedule=sample.guidance_schedule,
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
          UserError: another tokenizer wrote the code cache, or one is needed.
        """
        codebooks = self.config.data.codebooks
        if self.cache is None:
            return None
        if not path:
            check(
                not codebooks,
                f"data.codebooks={codebooks} needs sample.tokenizer: name the nested tokenizer that wrote the codes.",
            )
            return None
        stored, tokenizer = self.cache.stored, api.load_tokenizer(path)
        if tokenizer.module.nested and stored.num_codebooks < tokenizer.module.num_codebooks:
            tokenizer = tokenizer.first(stored.num_codebooks)
        check(
            tokenizer.fingerprint == stored.tokenizer,
            f"The code cache {self.config.data.codes} was written by another tokenizer than {path}: "
            "tokenize again with this one, or name the one that wrote it.",
        )
        return tokenizer.first(codebooks or None)

    def _entry_dim(self, without_tokenizer: int) -> int:
        """Returns the width of the entries with which embeddings begin; 0 for tables of their own."""
        if self.config.model.embeddings == "learned":
            return 0
        if self.cache is None:
            return without_tokenizer
        if self.tokenizer is None:
            raise UserError(
                "model.embeddings='codebook' begins with the tokenizer's entries: name it with sample.tokenizer."
            )
        return self.tokenizer.module.code_dim

    def first_state(self, state: TrainState, mesh: Mesh) -> TrainState:
        """Returns the state with the tokenizer's entries, if embeddings begin with them and no other weights do."""
        del mesh
        if not self.module.entry_dim or self.config.train.init_from:
            return state
        assert self.tokenizer is not None
        old = state.params["code_entries"]
        params = state.params | {"code_entries": put_global(scaled_entries(self.tokenizer), old.sharding)}
        ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
        return dataclasses.replace(state, params=params, ema=ema)

    def description(self) -> ModelDescription:
        """Returns what `model.json` says of the generator."""
        return ModelDescription(
            kind=self.kind,
            fields=self.fields,
            class_names=tuple(self.manifest.class_names),
            tokenizer=self.manifest.tokenizer if self.tokenizer is None else self.tokenizer.fingerprint,
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
        assert self.cache is not None
        return code_batches(self.cache, stream)

    def random_batch(self, key: jax.Array) -> dict[str, jax.Array]:
        """Returns a global batch of random codes with the shapes of `batches`."""
        shape = (self.config.data.batch_size, *self.module.grid, self.module.num_codebooks)
        codes = jax.random.randint(key, shape, 0, self.module.codebook_size)
        return {"codes": codes, "label": jnp.zeros(len(codes), jnp.int32)}

    def step(self, state: TrainState, frozen: PyTree, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        """Makes one update; pure. See `generator_step`."""
        del frozen
        state, values = generator_step(state, batch, training=self.training)
        return state, {name: average(value) for name, value in values.items()}


def open_codes(data) -> tuple[CodeCache, CodeCache | None]:
    """Opens the code caches that a config's section `data` names: those of training, and the held-out ones if any.

    Raises:
      UserError: there is no cache, or the two do not belong together.
    """
    check(bool(data.codes), "data.codes is empty: name the folder that fqgan tokenize wrote.")
    cache = CodeCache(as_path(data.codes), codebooks=data.codebooks)
    beside = as_path(data.codes) / VALIDATION
    path = as_path(data.validation_codes) if data.validation_codes else beside
    if not data.validation_codes and not (beside / MANIFEST).exists():
        return cache, None
    held_out = CodeCache(path, codebooks=data.codebooks)
    for name in ("tokenizer", "class_names", "grid"):
        check(
            getattr(held_out.stored, name) == getattr(cache.stored, name),
            f"The held-out codes {path} have another {name.replace('_', ' ')} than {data.codes}: write both with one "
            "fqgan tokenize.",
        )
    return cache, held_out


def scaled_entries(tokenizer: api.Tokenizer) -> Float[np.ndarray, "K N d"]:
    """Returns the entries of a tokenizer, scaled to a mean square length of 1."""
    K, N = tokenizer.module.num_codebooks, tokenizer.module.codebook_size
    codes = jnp.broadcast_to(jnp.arange(N)[None, :, None, None], (1, N, 1, K))
    entries = apply(tokenizer.module, tokenizer.params, codes, method="codes_to_entries")
    entries = np.asarray(entries[0, :, 0], np.float32).swapaxes(0, 1)
    return entries / np.sqrt((entries**2).sum(axis=-1).mean())


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
