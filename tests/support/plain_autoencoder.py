"""A task of a user's own, whole: an autoencoder of images without a codebook, with its config."""

from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fqgan_jax.checkpoints import ModelDescription
from fqgan_jax.config import task_defaults
from fqgan_jax.data.loader import evaluation_batches, image_batches
from fqgan_jax.data.pixels import to_float
from fqgan_jax.data.sources import open_source
from fqgan_jax.data.stream import Batch, Stream
from fqgan_jax.models.fields import model_kinds, module_fields
from fqgan_jax.training import Evaluator, Task, tasks
from fqgan_jax.training.from_config import learning_rates, optimizer_settings
from fqgan_jax.training.metrics import average
from fqgan_jax.training.optimizers import make_tx
from fqgan_jax.training.state import apply_gradients, create_state, next_state


@model_kinds("autoencoder")
class Autoencoder(nn.Module):
    """Encodes 4x4 patches into latents, and decodes them."""

    width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images):
        latents = nn.Conv(self.width, (4, 4), (4, 4), dtype=self.dtype, name="encoder")(images)
        return nn.ConvTranspose(3, (4, 4), (4, 4), dtype=self.dtype, name="decoder")(nn.gelu(latents))


def get_config(arguments: str = ""):
    config = task_defaults()
    config.task = "autoencoder"
    config.width = 16
    config.data.source = "photos"
    config.data.image_size = 16
    config.data.batch_size = 8
    return config


@tasks("autoencoder")
class AutoencoderTask(Task):
    kind = "autoencoder"
    defaults = staticmethod(get_config)

    def __init__(self, config, num_shards: int):
        super().__init__(config, num_shards)
        self.module = Autoencoder(width=config.width)
        self.tx = make_tx(optimizer_settings(config.optimizer, config.train.steps))
        self.source = open_source(config.data.source, "train")

    def description(self) -> ModelDescription:
        return ModelDescription(kind=self.kind, fields=module_fields(self.module))

    def init(self, key: jax.Array):
        size = self.config.data.image_size
        return create_state(self.module.init(key, jnp.zeros((1, size, size, 3)))["params"], self.tx, with_ema=False)

    def batches(self, start_step: int, batch_slice) -> Iterator[Batch]:
        data = self.config.data
        stream = Stream(
            batch_size=data.batch_size, seed=self.config.seed, start_step=start_step, batch_slice=batch_slice
        )
        return image_batches(self.source, stream, image_size=data.image_size, skipped=self.skipped)

    def random_batch(self, key: jax.Array) -> Batch:
        size = self.config.data.image_size
        return {"image": jax.random.bits(key, (self.config.data.batch_size, size, size, 3), jnp.uint8)}

    def loss(self, params, images):
        return jnp.mean((self.module.apply({"params": params}, images) - images) ** 2)

    def step(self, state, frozen, batch):
        loss, grads = jax.value_and_grad(self.loss)(state.params, to_float(batch["image"]))
        params, opt_state = apply_gradients(state.params, grads, state.opt_state, tx=self.tx)
        new = state.replace(params=params, opt_state=opt_state)
        return next_state(state, new, finite=jnp.isfinite(loss)), {"loss": average(loss)}

    def learning_rates(self, num_steps: int):
        return learning_rates(self.config, num_steps)

    def evaluators(self):
        return {"error": Evaluator(run=self.evaluate, every=self.config.train.evaluate_every)}

    def evaluate(self, params, mesh):
        source, size = open_source(self.config.data.source, "validation"), self.config.data.image_size
        batch = next(evaluation_batches(source, image_size=size, batch_size=8, skipped=self.skipped))
        images = to_float(batch["image"])
        decoded = self.module.apply({"params": params}, images)
        picture = np.uint8(np.clip(127.5 * (np.concatenate(decoded, axis=1) + 1), 0, 255))
        return {"mse": float(self.loss(params, images))}, {"decoded": picture}
