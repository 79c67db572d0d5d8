"""Evaluation of a generator by its samples."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, PyTree

from fqgan_jax.api import Generator, Tokenizer
from fqgan_jax.checkpoints import fingerprint
from fqgan_jax.data.pixels import to_uint8
from fqgan_jax.data.stream import Batch
from fqgan_jax.evaluation.features import FeatureNetwork, FeatureSet, Measured
from fqgan_jax.evaluation.metrics.codebooks import code_statistics
from fqgan_jax.evaluation.networks import EvaluationNetworks, feature_results
from fqgan_jax.evaluation.protocol import Evaluation
from fqgan_jax.evaluation.reference import MEASURES, Reference
from fqgan_jax.models.far import FAR
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.models.sampling import SamplingOptions, sample_codes, sampling_options
from fqgan_jax.sharding.passes import Step, rows_of_examples


def evaluate_generator(
    generator: Generator,
    tokenizer: Tokenizer,
    *,
    count: int,
    seed: int,
    sampling: dict[str, Sequence[float]],
    reference: Reference | None,
    networks: EvaluationNetworks,
    batch_size: int,
) -> Measured:
    """gFID, sFID, precision, recall and inception score of `count` samples, and usage of their codes.

    Sample i has class i modulo the number of classes and a key of its own, so that batches do not matter. `sampling`
    holds guidance, temperature, top_k and top_p (see `sampling_options`).

    Raises:
      UserError: a sampling option out of range.
    """
    options = sampling_options(generator.module.num_codebooks, **sampling)
    measured = measure_generator(
        generator.module,
        generator.params,
        tokenizer,
        count=count,
        seed=seed,
        options=options,
        reference=reference,
        networks=networks,
        batch_size=batch_size,
    )
    protocol = {"task": "generator", "generator": fingerprint({}, generator.params), "tokenizer": tokenizer.fingerprint}
    protocol |= {"count": count, "labels": f"0 to {generator.module.num_classes - 1} in turn", "seed": seed}
    protocol |= {"sampling": sampling, **measured.evaluation.protocol}
    return measured._replace(evaluation=measured.evaluation._replace(protocol=protocol))


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
) -> Measured:
    """What `evaluate_generator` gives, of parameters in training, which its protocol does not identify.

    Args:
      mesh: where the parameters lie; by default all devices.
    """
    network, labels = networks.inception, np.arange(count, dtype=np.int32) % module.num_classes
    features, codes = network and FeatureSet(), []
    drawn = draw_samples(
        module,
        params,
        labels,
        seed=seed,
        options=options,
        batch_size=batch_size,
        tokenizer=None if network is None else tokenizer,
        network=network,
        mesh=mesh,
    )
    for rows in drawn:
        codes.append(rows["codes"])
        if features is not None:
            features.add(rows["features"])

    found, missing = feature_results(features, reference, MEASURES, networks)
    named = lambda numbers: {{"fid": "gfid"}.get(name, name): number for name, number in numbers.items()}
    codes = np.concatenate(codes)
    results = named(found) | code_statistics(codes, module.codebook_size)
    protocol = {"dtype": {"generator": jnp.dtype(module.dtype).name, "tokenizer": "float32"}} | networks.protocol(
        reference
    )
    return Measured(Evaluation(results, named(missing), protocol), features, codes, labels)


def draw_samples(
    module: FAR,
    params: PyTree,
    labels: Int[np.ndarray, " n"],
    *,
    seed: int,
    options: SamplingOptions,
    batch_size: int,
    tokenizer: Tokenizer | None = None,
    network: FeatureNetwork | None = None,
    mesh: Mesh | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """A sample of every label in order, some at a time (see `rows_of_examples`).

    Sample i has a key of seed and i. It has "codes"; with a tokenizer its "image", uint8; with a network too, in the
    place of the image, its "features".
    """

    def batches(size: int) -> Iterator[Batch]:
        for first in range(0, len(labels), size):
            index = np.arange(first, first + size, dtype=np.int32)
            yield {"index": index, "label": np.resize(labels[first:], size), "mask": np.float32(index < len(labels))}

    arguments = {"generator": params, "options": options, "seed": jnp.uint32(seed)}
    if tokenizer:
        arguments["tokenizer"] = tokenizer.params
    if network:
        arguments["inception"] = network.params
    # Pixels in float32: bfloat16's rounding depends on how a batch is spread over devices.
    step = _step(module, tokenizer and tokenizer.module.clone(dtype=jnp.float32), network and network.apply)
    return rows_of_examples(
        step, arguments, batches, batch_size=batch_size, count=len(labels), title="samples", mesh=mesh
    )


@lru_cache(maxsize=2)  # the same function again is not compiled again, at every evaluation of a training run
def _step(far: FAR, tokenizer: FQGAN | None = None, network: Callable | None = None) -> Step:
    """Per "label" and "index": codes, drawn with a key of seed and index; the tokenizer's images, or their features."""

    def step(params: PyTree, batch: Batch) -> dict[str, Array]:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(params["seed"]), batch["index"])
        codes = sample_codes(far, params["generator"], keys=keys, labels=batch["label"], options=params["options"])
        rows = {"codes": codes}
        if tokenizer:
            images = to_uint8(tokenizer.apply({"params": params["tokenizer"]}, codes, method="decode"))
            rows |= {"features": network(params["inception"], images)} if network else {"image": images}
        return rows

    return step
