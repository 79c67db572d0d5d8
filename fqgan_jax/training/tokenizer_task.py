"""Training of the tokenizer: its batches, its step, its evaluation."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fqgan_jax.build import build_tokenizer, tokenizer_fields
from fqgan_jax.data.loader import Batch, evaluation_batches, image_batches
from fqgan_jax.data.sources import Skipped, open_source
from fqgan_jax.evaluation.figures import image_rows
from fqgan_jax.evaluation.reconstruction import psnr, ssim
from fqgan_jax.teachers.registry import HOST_TEACHERS
from fqgan_jax.training.metrics import CodeUsage, Metrics, average, masked_average
from fqgan_jax.training.objective import tokenizer_objective
from fqgan_jax.training.optimizers import learning_rate_schedule, make_optimizer
from fqgan_jax.training.state import TrainState, apply_gradients, create_state


def to_float(images: jax.Array) -> jax.Array:
    """uint8 [0, 255] to float32 [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1


class TokenizerTask:
    """What the loop needs to train a tokenizer."""

    kind = "tokenizer"
    headline = "reconstruction"  # the metric beside the progress bar

    def __init__(self, config):
        self.config = config
        self.fields = tokenizer_fields(config)
        self.module = build_tokenizer(self.fields)
        self.optimizer = make_optimizer(config.optimizer, config.train.steps)
        self.schedule = learning_rate_schedule(config.optimizer, config.train.steps)
        self.skipped = Skipped()
        source = (config.data.source, config.data.validation_fraction)
        self.train_source = open_source(source[0], "train", source[1])
        self.validation_source = open_source(source[0], "validation", source[1])
        self._reconstruct = jax.jit(self._evaluation_step)

    def description(self) -> dict:
        """What is saved beside the parameters, so that a checkpoint describes itself."""
        return {"fields": self.fields, "class_names": self.train_source.class_names}

    def init(self, key: jax.Array) -> TrainState:
        """A fresh state."""
        size = self.config.data.image_size
        params = self.module.init(key, jnp.zeros((1, size, size, 3)))["params"]
        return create_state(params, self.optimizer, self.config.optimizer.ema_decay)

    def batches(self, start_step: int, process: tuple[int, int]) -> Iterator[Batch]:
        """This host's training batches from a step on."""
        data = self.config.data
        teachers = sorted({teacher for teacher in self.config.teachers if teacher in HOST_TEACHERS})
        functions = [(teacher, HOST_TEACHERS[teacher].features) for teacher in teachers]
        sizes = (data.image_size, data.batch_size, self.config.seed, start_step)
        return image_batches(self.train_source, *sizes, self.skipped, functions, data.num_threads, process)

    def step(self, state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        """One update; pure."""
        images = to_float(batch["image"])
        targets = [teacher and batch[f"feature/{teacher}"] for teacher in self.config.teachers]

        def loss(params):
            output = self.module.apply({"params": params}, images)
            total, terms = tokenizer_objective(output, images, targets, self.config.loss)
            return total, (terms, output.quantizer.codes)

        gradients, (terms, codes) = jax.grad(loss, has_aux=True)(state.params)
        metrics = {name: average(term) for name, term in terms.items()}
        metrics["gradient_norm"] = average(optax.tree.norm(gradients))
        metrics["codes"] = CodeUsage.from_codes(codes, self.module.codebook_size)
        return apply_gradients(state, gradients, self.optimizer, self.config.optimizer.ema_decay), metrics

    def _evaluation_step(self, params, batch) -> tuple[Metrics, jax.Array]:
        images = to_float(batch["image"])
        codes = self.module.apply({"params": params}, images, method="encode")
        reconstruction = self.module.apply({"params": params}, codes, method="decode")
        metrics = {
            "psnr": masked_average(psnr(reconstruction, images), batch["mask"]),
            "ssim": masked_average(ssim(reconstruction, images), batch["mask"]),
            "codes": CodeUsage.from_codes(codes, self.module.codebook_size, batch["mask"]),
        }
        return metrics, reconstruction

    def evaluation_batches(self) -> Iterator[Batch]:
        """Every validation image once."""
        data = self.config.data
        return evaluation_batches(self.validation_source, data.image_size, data.batch_size, self.skipped)

    def evaluate(self, params, batch: dict[str, jax.Array]) -> tuple[Metrics, dict[str, np.ndarray]]:
        """Metrics of one evaluation batch, and a picture: originals above reconstructions."""
        metrics, reconstruction = self._reconstruct(params, batch)
        shown = int(min(8, batch["mask"].sum()))
        rows = [np.asarray(to_float(batch["image"][:shown])), np.asarray(reconstruction[:shown])]
        return metrics, {"reconstructions": image_rows(rows)}
