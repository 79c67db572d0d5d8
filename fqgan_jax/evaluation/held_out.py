"""How well a generator predicts codes that it was not trained on: by sub-codebook, position and class."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PyTree

from fqgan_jax.data.stream import Batch
from fqgan_jax.losses.generator_losses import code_losses
from fqgan_jax.models.applying import apply
from fqgan_jax.models.far import FAR
from fqgan_jax.sharding.passes import DeviceBatch, Step, rows_of_examples


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Cross-entropies of held-out codes in nats, given the class and the codes before.

    Attributes:
      by_position: mean over images.
      by_class: mean over a class's images and positions; NaN without images.
      images: of each class.
    """

    by_position: Float[np.ndarray, "h w K"]
    by_class: Float[np.ndarray, "C K"]
    images: Int[np.ndarray, " C"]

    @property
    def by_codebook(self) -> Float[np.ndarray, " K"]:
        """Mean over images and positions."""
        return self.by_position.mean(axis=(0, 1))

    def results(self) -> dict[str, float]:
        """Returns loss and perplexity of each sub-codebook, and the mean loss, by name."""
        losses = self.by_codebook
        results = {"next_code": float(losses.mean())}
        results |= {f"next_code/{k}": float(loss) for k, loss in enumerate(losses)}
        return results | {f"next_code_perplexity/{k}": float(np.exp(loss)) for k, loss in enumerate(losses)}


def measure_held_out(
    module: FAR,
    params: PyTree,
    batches: Callable[[int], Iterator[Batch]],
    *,
    count: int,
    batch_size: int,
    mesh: Mesh | None = None,
) -> HeldOut:
    """Measures every image of a set of codes, whatever the size of batches and the number of devices.

    Args:
      module: the generator's module.
      params: its parameters.
      batches: gives batches of a size: "codes" [B, h, w, K], "label" [B] and "mask" [B].
      count: images, for the progress bar.
      batch_size: size of the global batch.
      mesh: the devices that hold the parameters; by default all devices.
    """
    (h, w), K, C = module.grid, module.num_codebooks, module.num_classes
    by_position, by_class = np.zeros((h * w, K)), np.zeros((C, K))
    images = np.zeros(C, np.int64)
    rows = rows_of_examples(
        _step(module), params, batches, batch_size=batch_size, count=count, title="held out", mesh=mesh
    )
    for row in rows:
        losses = row["losses"].astype(np.float64)
        by_position += losses.sum(axis=0)
        np.add.at(by_class, row["label"], losses.mean(axis=1))
        np.add.at(images, row["label"], 1)
    with np.errstate(invalid="ignore"):
        by_class = by_class / images[:, None]
    return HeldOut(by_position=(by_position / images.sum()).reshape(h, w, K), by_class=by_class, images=images)


# The same module gives the same function, which JAX then compiles once in a training run.
@functools.lru_cache(maxsize=2)
def _step(module: FAR) -> Step:
    """Returns a step that computes the loss of each code."""

    def step(params: PyTree, batch: DeviceBatch) -> dict[str, Array]:
        codes = jnp.reshape(batch["codes"], (len(batch["codes"]), -1, module.num_codebooks))
        logits = apply(module, params, codes, batch["label"])
        return {"losses": code_losses(logits, codes), "label": batch["label"]}

    return step
