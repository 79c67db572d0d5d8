"""The interface between the training loop and a task, and the table of tasks.

A task of your own is a class in a file that the config imports:

    @tasks("autoencoder")
    class Autoencoder(Task):
        kind = "autoencoder"

        def init(self, key): ...
        def batches(self, start_step, batch_slice): ...
        def step(self, state, frozen, batch): ...

`docs/extending.md` has a whole one.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import ClassVar

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import PyTree
from ml_collections import ConfigDict

from fqgan_jax.checkpoints import ModelDescription
from fqgan_jax.config import Registry, task_defaults
from fqgan_jax.data.skipping import Skipped
from fqgan_jax.data.stream import Batch
from fqgan_jax.data.transforms import Size
from fqgan_jax.errors import UserError
from fqgan_jax.sharding.mesh import BatchSlice
from fqgan_jax.training.metrics import Metrics
from fqgan_jax.training.state import TrainState

tasks: Registry[type["Task"]] = Registry("task")  # config field `task`

Values = dict[str, float]
Pictures = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator:
    """An evaluation during training.

    Attributes:
      run: function of the parameters for inference and the mesh that returns numbers, logged as `validation/NAME`, and
        uint8 pictures `[H, W, 3]`, both by name.
      every: steps between two runs; it also runs after the last step.
    """

    run: Callable[[PyTree, Mesh], tuple[Values, Pictures]]
    every: int


class Task:
    """A model with its training step, its batches and its evaluations.

    A subclass defines `kind`, `init`, `batches` and `step`; everything else has a default.

    Attributes:
      kind: kind of the model, in `model.json`.
      module: the model; plans, benchmarks and checks read it.
      headline: name of the metric that is shown beside the progress bar.
      config: the whole config, of which each task reads the fields it defines.
      num_shards: parts into which devices split a batch.
      skipped: images that could not be read so far.
    """

    kind: ClassVar[str]
    module: nn.Module
    headline: ClassVar[str] = "loss"

    def __init__(self, config: ConfigDict, num_shards: int):
        self.config = config
        self.num_shards = num_shards
        self.skipped = Skipped()

    @staticmethod
    def defaults() -> ConfigDict:
        """Returns a config with every field that the task reads.

        Configs saved before a field existed take its value from here, so the default of a field that is added must
        keep what was computed without it.
        """
        return task_defaults()

    @classmethod
    def without_data(cls, config: ConfigDict, num_shards: int, *, tokenizer_config: ConfigDict | None = None) -> "Task":
        """Returns a task that only plans and benchmarks use: they call `init`, `step` and the `random_…` methods.

        Args:
          config: config of the task.
          num_shards: see `Task`.
          tokenizer_config: config of the tokenizer whose codes are used if the task's config names no code cache.
        """
        del tokenizer_config
        return cls(config, num_shards)

    def init(self, key: jax.Array) -> TrainState:
        """Returns the state before the first step; pure, so that it can be initialized in shards."""
        raise NotImplementedError

    def first_state(self, state: TrainState, mesh: Mesh) -> TrainState:
        """Returns the state of a run's first step, sharded as the initialized one: a place for values from data."""
        del mesh
        return state

    def warm_parts(self) -> tuple[nn.Module, tuple[nn.Module, Size] | None]:
        """Returns what can take another model's weights: the module, and a discriminator with its images' size.

        Raises:
          UserError: models of this task begin from random weights alone.
        """
        raise UserError(f"train.init_from: the task {self.kind!r} cannot start from another model's weights.")

    def batches(self, start_step: int, batch_slice: BatchSlice) -> Iterator[Batch]:
        """Yields this host's slice of the global batch of `start_step` and of every step after it.

        A batch is a function of the seed and its step alone: that makes resumption exact.
        """
        raise NotImplementedError

    def step(self, state: TrainState, frozen: PyTree, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        """Returns the state after one update, and metrics of the same names at every step; pure.

        Randomness is `fold_in(key, state.step)`.
        """
        raise NotImplementedError

    def description(self) -> ModelDescription:
        """Returns the description of the model for `model.json`: its kind, the fields of its module, class names."""
        return ModelDescription(kind=self.kind, fields={})

    def data_state(self, verify: str) -> str:
        """Returns what changes if the training data does; "" if that is not known.

        Args:
          verify: how closely to look, as `data.verify` says: "names", "files" or "content".
        """
        del verify
        return ""

    def frozen(self) -> PyTree:
        """Returns the parameters of frozen networks, which `step` takes as an argument.

        Raises:
          UserError: missing or damaged weights.
        """
        return {}

    def random_frozen(self, key: jax.Array) -> PyTree:
        """Returns random numbers of the shapes of `frozen`, for plans and benchmarks without published weights."""
        del key
        return {}

    def random_batch(self, key: jax.Array) -> dict[str, jax.Array]:
        """Returns a global batch of noise with the shapes of `batches`, for plans and benchmarks."""
        raise NotImplementedError

    def learning_rates(self, num_steps: int) -> dict[str, optax.Schedule]:
        """Returns the learning-rate schedules of a run of `num_steps` steps by name, for the log.

        A run that is continued with another `train.steps` is refused if a learning rate of a past step would differ.
        """
        del num_steps
        return {}

    def evaluators(self) -> dict[str, Evaluator]:
        """Returns the evaluations during training by name."""
        return {}
