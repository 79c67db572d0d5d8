"""Evaluation of a generator by its samples."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int, PyTree

from fqgan_jax.api import Generator, Tokenizer
from fqgan_jax.checkpoints import fingerprint
from fqgan_jax.data.pixels import to_uint8
from fqgan_jax.data.stream import Batch
from fqgan_jax.evaluation.features import FeatureNetworks, describe
from fqgan_jax.evaluation.metrics import FeatureSet, Reference
from fqgan_jax.evaluation.networks import EvaluationNetworks
from fqgan_jax.evaluation.protocol import Evaluation, Measurement
from fqgan_jax.evaluation.results import code_results, feature_results
from fqgan_jax.models.applying import apply
from fqgan_jax.models.far import FAR
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.models.sampling import sample_codes
from fqgan_jax.models.sampling_options import SamplingOptions, sampling_options
from fqgan_jax.sharding.passes import DeviceBatch, Step, rows_of_examples


def evaluate_generator(
    generator: Generator,
    tokenizer: Tokenizer,
    *,
    count: int,
    seed: int,
    sampling: Mapping[str, Any],
    reference: Reference | None,
    networks: EvaluationNetworks,
    batch_size: int,
) -> Measurement:
    """Measures samples: gFID, sFID, precision, recall, inception score and metrics of their codes.

    Sample i has class i modulo the number of classes and a key of its own, so the result does not depend on batches.

    Args:
      generator: the generator to measure.
      tokenizer: decodes its codes.
      count: number of samples.
      seed: seed of the samples' keys.
      sampling: guidance, temperature, top_k and top_p (see `sampling_options`).
      reference: images or statistics that the samples are compared with; None if there are none.
      networks: frozen networks of the metrics.
      batch_size: size of the global batch.

    Raises:
      UserError: a sampling option out of range.
    """
    num_classes = generator.module.num_classes
    measured = measure_generator(
        generator.module,
        generator.params,
        tokenizer,
        count=count,
        seed=seed,
        options=sampling_options(generator.module.num_codebooks, **sampling),
        reference=reference,
        networks=networks,
        batch_size=batch_size,
    )
    return measured.with_protocol(
        task="generator",
        generator=fingerprint({}, generator.params),
        tokenizer=tokenizer.fingerprint,
        count=count,
        labels=f"0 to {num_classes - 1} in turn",
        seed=seed,
        sampling=sampling,
    )


def measure_generator(
    module: FAR,
    params: PyTree,
    tokenizer: Tokenizer,
    *,
    count: int,
    seed: int,
    options: SamplingOptions,
    reference: Reference | None,
    networks: EvaluationNetworks,
    batch_size: int,
    mesh: Mesh | None = None,
) -> Measurement:
    """Measures parameters in training as `evaluate_generator` does; the protocol does not identify them.

    Args:
      module: the generator's module.
      params: its parameters.
      tokenizer: decodes its codes.
      count: number of samples.
      seed: seed of the samples' keys.
      options: how the codes are drawn.
      reference: images or statistics that the samples are compared with; None if there are none.
      networks: frozen networks of the metrics.
      batch_size: size of the global batch.
      mesh: the devices that hold the parameters; by default all devices.
    """
    labels = np.arange(count, dtype=np.int32) % module.num_classes
    features = FeatureSet() if networks.features else None
    parts: list[Int[np.ndarray, "n h w K"]] = []
    for rows in draw_samples(
        module,
        params,
        labels,
        seed=seed,
        options=options,
        batch_size=batch_size,
        tokenizer=tokenizer if networks.features else None,
        networks=networks.features,
        mesh=mesh,
    ):
        parts.append(rows["codes"])
        if features is not None:
            features.add(rows["features"])

    codes = np.concatenate(parts)
    results, missing = feature_results(features, reference, task="generator", networks=networks)
    dtypes = {"generator": jnp.dtype(module.dtype).name, "tokenizer": "float32"}
    evaluation = Evaluation(
        results=results | code_results(codes, module.codebook_size),
        missing=missing,
        protocol={"dtype": dtypes} | networks.protocol(reference),
    )
    return Measurement(evaluation=evaluation, features=features, codes=codes, labels=labels)


def draw_samples(
    module: FAR,
    params: PyTree,
    labels: Int[np.ndarray, " n"],
    *,
    seed: int,
    options: SamplingOptions,
    batch_size: int,
    tokenizer: Tokenizer | None = None,
    networks: FeatureNetworks | None = None,
    mesh: Mesh | None = None,
) -> Iterator[dict[str, Any]]:
    """Draws a sample of every label in order; sample i has a key of the seed and i.

    Args:
      module: the generator's module.
      params: its parameters.
      labels: class of each sample.
      seed: seed of the samples' keys.
      options: how the codes are drawn.
      batch_size: size of the global batch.
      tokenizer: decodes the codes, if images or features are wanted.
      networks: describe the images, if features are wanted instead of images; they need a tokenizer.
      mesh: the devices that hold the parameters; by default all devices.

    Yields:
      Batches of samples (see `rows_of_examples`): "codes", and with a tokenizer "image" (uint8) or "features".
    """

    def batches(size: int) -> Iterator[Batch]:
        for first in range(0, len(labels), size):
            index = np.arange(first, first + size, dtype=np.int32)
            mask = (index < len(labels)).astype(np.float32)
            yield {"index": index, "label": np.resize(labels[first:], size), "mask": mask}

    frozen = {"generator": params, "options": options, "seed": jnp.uint32(seed)}
    decoder = None
    if tokenizer is not None:
        frozen["tokenizer"] = tokenizer.params
        # Pixels in float32: bfloat16 rounding depends on how a batch is split over devices.
        decoder = tokenizer.module.clone(dtype=jnp.float32)
    if networks:
        frozen["features"] = networks.params
    step = _sampling_step(module, decoder, networks.functions if networks else ())
    return rows_of_examples(step, frozen, batches, batch_size=batch_size, count=len(labels), title="samples", mesh=mesh)


# The same arguments give the same function, which JAX then compiles once in a training run.
@functools.lru_cache(maxsize=2)
def _sampling_step(module: FAR, decoder: FQGAN | None, features: tuple[tuple[str, Callable], ...]) -> Step:
    """Returns a step that draws codes for each "label" and "index", with images or features if networks are given."""

    def step(params: PyTree, batch: DeviceBatch) -> dict[str, Any]:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(params["seed"]), batch["index"])
        codes = sample_codes(module, params["generator"], keys=keys, labels=batch["label"], options=params["options"])
        if decoder is None:
            return {"codes": codes}
        images = to_uint8(apply(decoder, params["tokenizer"], codes, method="decode"))
        if not features:
            return {"codes": codes, "image": images}
        return {"codes": codes, "features": describe(features, params["features"], images)}

    return step
