"""Linear probe: how much of an image's class its codes tell, for each sub-codebook alone and for all together."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from fqgan_jax.api import Tokenizer
from fqgan_jax.data.pixels import to_float
from fqgan_jax.errors import check
from fqgan_jax.evaluation.image_set import ImageSet
from fqgan_jax.evaluation.protocol import Measurement
from fqgan_jax.models.applying import apply
from fqgan_jax.sharding.passes import DeviceBatch, rows_of_examples

PROTOCOL = (
    "each image's mean over positions of the entries of its codes, scaled to deviation 1 on the training split; "
    "scikit-learn's LogisticRegression(C=1, max_iter=1000); accuracy on the validation split"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PooledCodes:
    """What a probe sees of a set of images.

    Attributes:
      entries: per image, the mean of its codes' entries over positions.
      labels: its class.
    """

    entries: Float[np.ndarray, "n K d"]
    labels: Int[np.ndarray, " n"]


def probe_tokenizer(
    tokenizer: Tokenizer, train: ImageSet, validation: ImageSet, *, batch_size: int
) -> tuple[dict[str, float], dict]:
    """Trains linear classifiers on the codes of one set of images and tests them on another.

    Args:
      tokenizer: gives the codes.
      train: images with classes to train on.
      validation: images with the same classes to test on.
      batch_size: size of the global batch.

    Returns:
      Accuracies, `probe/0` of the first sub-codebook alone to `probe/all`; and their protocol.

    Raises:
      UserError: fewer than two classes.
    """
    seen, held_out = (pooled_codes(tokenizer, images, batch_size=batch_size) for images in (train, validation))
    protocol = {
        "classifier": PROTOCOL,
        "train": train.protocol(len(seen.labels)),
        "validation": validation.protocol(len(held_out.labels)),
    }
    return probe_accuracies(seen, held_out), protocol


def with_probe(measured: Measurement, accuracies: dict[str, float], protocol: dict) -> Measurement:
    """Returns a measurement with the numbers of a probe."""
    evaluation = dataclasses.replace(
        measured.evaluation,
        results=measured.evaluation.results | accuracies,
        protocol=measured.evaluation.protocol | {"probe": protocol},
    )
    return dataclasses.replace(measured, evaluation=evaluation)


def probe_accuracies(train: PooledCodes, validation: PooledCodes) -> dict[str, float]:
    """Returns the accuracy of a classifier of each sub-codebook alone and of all together, by name.

    Raises:
      UserError: fewer than two classes to train on, or nothing to test on.
    """
    check(
        len(np.unique(train.labels)) > 1 and len(validation.labels) > 0,
        "A probe needs images of at least two classes to train on, and others to test on: give a dataset with classes "
        "and a validation split.",
    )
    K = train.entries.shape[1]
    parts = {str(k): slice(k, k + 1) for k in range(K)} | {"all": slice(None)}
    return {f"probe/{name}": _accuracy(train, validation, part) for name, part in parts.items()}


def pooled_codes(tokenizer: Tokenizer, images: ImageSet, *, batch_size: int) -> PooledCodes:
    """Computes what a probe sees of every readable image, in one pass."""
    module = tokenizer.module.clone(dtype=jnp.float32)

    def step(params: PyTree, batch: DeviceBatch) -> dict[str, Array]:
        codes = apply(module, params, to_float(batch["image"]), method="encode")
        entries = apply(module, params, codes, method="codes_to_entries")
        return {"entries": jnp.mean(entries, axis=(1, 2)), "labels": batch["label"]}

    rows = list(
        rows_of_examples(
            step, tokenizer.params, images.batches, batch_size=batch_size, count=len(images), title="probe"
        )
    )
    check(bool(rows), f"None of the images of {images.name} can be read. {images.skipped.report()}")
    return PooledCodes(**{name: np.concatenate([row[name] for row in rows]) for name in ("entries", "labels")})


def _accuracy(train: PooledCodes, validation: PooledCodes, part: slice) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    seen, held_out = (each.entries[:, part].reshape(len(each.labels), -1) for each in (train, validation))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    return float(classifier.fit(seen, train.labels).score(held_out, validation.labels))
