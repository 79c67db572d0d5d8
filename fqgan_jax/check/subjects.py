"""What `fqgan check` runs: a small tokenizer and generator, whose numbers are the same on every device and host.

Parameters and inputs come from NumPy. Widths are such that the sharding rules split the parameters as those of large
models.
"""

import dataclasses
import math
import zlib
from functools import cached_property, partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree
from ml_collections import ConfigDict

from fqgan_jax.check.numbers import Numbers, summaries
from fqgan_jax.config import generator_defaults, tokenizer_defaults
from fqgan_jax.data.pixels import to_float
from fqgan_jax.models.applying import apply
from fqgan_jax.models.sampling import sample_codes
from fqgan_jax.models.sampling_options import sampling_options
from fqgan_jax.models.stacking import axes_within_layer
from fqgan_jax.performance.tasks import Step, make_step
from fqgan_jax.sharding import processes
from fqgan_jax.sharding.mesh import put_global, replicated
from fqgan_jax.sharding.passes import everywhere
from fqgan_jax.training.metrics import compute
from fqgan_jax.training.state import TrainState

BATCH_SIZE = 8
GUIDANCE = 2.0
SEED = 29  # with which rounding changes no code, and no side of an activation's kink


def tokenizer_config(*, batch_size: int = BATCH_SIZE, dtype: str = "float32") -> ConfigDict:
    """Returns the config of a dual tokenizer of 32x32 images, f = 2, with a teacher and a discriminator."""
    config = tokenizer_defaults()
    config.model.update(codebook_size=64, base_width=32, multipliers=(1, 2), num_blocks=1, norm_groups=4)
    config.model.update(z_channels=32, adapter_depth=1, adapter_heads=4, feature_depth=1, feature_heads=4, dtype=dtype)
    config.teachers = (None, "hog")
    config.loss.perceptual = 0.0
    config.adversarial.update(width=16, start=1, loss="non_saturating")  # hinges make gradients jump
    config.data.update(image_size=32, batch_size=batch_size)
    return config


def generator_config(*, batch_size: int = BATCH_SIZE, dtype: str = "float32") -> ConfigDict:
    """Returns the config of a generator of the tokenizer's codes."""
    config = generator_defaults()
    config.model.update(width=128, depth=2, num_heads=4, head_depth=1, swiglu_multiple=32, dtype=dtype)
    config.data.batch_size = batch_size
    return config


CONFIGS = {"tokenizer": tokenizer_config, "generator": generator_config}


def small_step(kind: str, axes: tuple[tuple[str, int], ...] | None = None, **fields) -> Step:
    """Returns the training step of a small model, not yet compiled.

    Args:
      kind: "tokenizer" or "generator".
      axes: names and sizes of a mesh over all devices; None: the first device of this process alone.
      **fields: of `tokenizer_config` or `generator_config`.
    """
    config = CONFIGS[kind](**fields)
    config.mesh.update(dict(axes or ()))
    devices = [jax.local_devices()[0]] if axes is None else None
    return make_step(config, devices=devices, tokenizer_config=tokenizer_config())


def filled(shapes: PyTree) -> PyTree:
    """Returns NumPy arrays of these shapes, each a function of its path: weights that keep activations near 1.

    States of optimizers and counters are zero.
    """

    def fill(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if "opt_state" in name or not jnp.issubdtype(leaf.dtype, jnp.floating):
            return np.zeros(leaf.shape, leaf.dtype)
        uniform = 2 * _random(name).random_sample(leaf.shape) - 1
        if name.endswith("scale"):
            return (1 + uniform / 5).astype(leaf.dtype)
        axes = axes_within_layer(name, leaf.ndim)
        fan_in = math.prod(leaf.shape[leaf.ndim - axes : -1]) if axes > 1 else 100
        return (uniform * math.sqrt(3 / fan_in)).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns an input of the models by its name in a batch: images, codes, labels or features."""
    highest = {"image": 256, "codes": 64, "label": 1000}
    if name in highest:
        return _random(name).randint(0, highest[name], shape).astype(np.uint8 if name == "image" else np.int32)
    return (_random(name).random_sample(shape) - 0.5).astype(np.float32)


def _random(name: str) -> np.random.RandomState:
    """Random numbers of a name. The streams of RandomState, not those of Generator, never change."""
    return np.random.RandomState(zlib.crc32(f"{SEED} {name}".encode()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepResult:
    """A training step that was made.

    Attributes:
      step: the step with its mesh.
      state: after the step.
      numbers: losses and other metrics, and summaries of the gradients of the networks' parts.
      batch_parts: parts into which the devices split the batch.
    """

    step: Step
    state: TrainState
    numbers: Numbers
    batch_parts: int


def make_one_step(step: Step) -> StepResult:
    """Makes one training step, of a state and a batch that depend on their shapes alone."""
    shapes, shardings = step.shapes, step.shardings
    state, frozen = (
        jax.tree.map(put_global, filled(tree), places)
        for tree, places in ((shapes.state, shardings.state), (shapes.frozen, shardings.frozen))
    )
    batch = {
        name: put_global(noise(name, leaf.shape), shardings.batch[name]) for name, leaf in sorted(shapes.batch.items())
    }
    function = processes.compiled_together(step.function) if step.mesh.is_multi_process else step.function
    state, metrics = function(state, frozen, batch)
    numbers = {name: np.array(value) for name, value in compute(metrics).items()}
    # Adam's first moment was zero before the step; now it is the clipped gradient times a constant.
    opt_states = {"gradient of": state.opt_state}
    if state.adversary is not None:
        opt_states["discriminator's gradient of"] = state.adversary.opt_state
    moments = {title: optax.tree_utils.tree_get(opt_state, "mu") for title, opt_state in opt_states.items()}
    for title, grads in everywhere(moments, replicated(step.mesh)).items():
        numbers |= summaries(jax.tree.map(np.asarray, grads), title)
    label = batch["label"]
    batch_parts = len(label) // len(label.addressable_shards[0].data)
    return StepResult(step=step, state=state, numbers=numbers, batch_parts=batch_parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A module and its parameters."""

    module: nn.Module
    params: PyTree


class Subjects:
    """The small models on these devices. What several parts look at is computed once, at its first use.

    Args:
      folder: where a state is saved, a folder that all processes see; None: a temporary one.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self._steps: dict[tuple, StepResult] = {}
        self.images = noise("image", (2, 32, 32, 3))
        self.codes = noise("codes", (2, 16, 16, 2))
        self.labels = np.array([4, 19])  # whose most probable codes are so by far

    def training_step(self, kind: str, axes: tuple[tuple[str, int], ...] | None = None, **fields) -> StepResult:
        """Returns a training step that was made once; for the arguments see `small_step`."""
        key = (kind, axes, *sorted(fields.items()))
        if key not in self._steps:
            self._steps[key] = make_one_step(small_step(kind, axes, **fields))
        return self._steps[key]

    @cached_property
    def tokenizer(self) -> Network:
        """The tokenizer, in float32."""
        return _network("tokenizer")

    @cached_property
    def generator(self) -> Network:
        """The generator, in float32."""
        return _network("generator")

    @cached_property
    def encoded(self) -> tuple[Float[np.ndarray, "B h w K d"], Int[np.ndarray, "B h w K"]]:
        """Latents and codes of the images, in float32."""
        return self.encode(jnp.float32)

    @cached_property
    def decoded(self) -> Float[np.ndarray, "B H W 3"]:
        """Images of the codes, in float32."""
        return self.decode(jnp.float32)

    @cached_property
    def sampled(self) -> tuple[Int[np.ndarray, "B h w K"], Float[np.ndarray, "B T K N"]]:
        """The most probable codes of the labels, drawn with cached keys and values, and their guided logits."""
        module = self.generator.module
        options = sampling_options(module.num_codebooks, guidance=GUIDANCE, temperature=0.0)
        keys = jax.random.split(jax.random.key(0), len(self.labels))
        choices = {"keys": keys, "labels": self.labels, "options": options}
        return jax.device_get(sample_codes(module, self.generator.params, **choices, with_logits=True))

    def encode(self, dtype: jnp.dtype) -> tuple[Float[np.ndarray, "B h w K d"], Int[np.ndarray, "B h w K"]]:
        """Returns the latents and the codes of the images."""
        module = self.tokenizer.module.clone(dtype=dtype)

        @jax.jit
        def encode(params: PyTree, images: Array) -> tuple[Array, Array]:
            latents = apply(module, params, images, method="latents")
            return latents, apply(module, params, latents, method="latents_to_codes")

        return jax.device_get(encode(self.tokenizer.params, to_float(self.images)))

    def decode(self, dtype: jnp.dtype) -> Float[np.ndarray, "B H W 3"]:
        """Returns the images of the codes."""
        module = self.tokenizer.module.clone(dtype=dtype)
        decode = jax.jit(partial(module.apply, method="decode"))
        return jax.device_get(decode({"params": self.tokenizer.params}, self.codes))


def _network(kind: str) -> Network:
    step = small_step(kind)
    return Network(module=step.task.module, params=filled(step.shapes.state).params)
