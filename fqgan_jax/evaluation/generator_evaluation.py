"""Evaluation of a generator by its samples."""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from fqgan_jax.api import Generator, Tokenizer
from fqgan_jax.data.loader import Batch
from fqgan_jax.evaluation.codebooks import code_statistics
from fqgan_jax.evaluation.features import FeatureSet, Measured
from fqgan_jax.evaluation.figures import to_uint8
from fqgan_jax.evaluation.frozen import Frozen, feature_results
from fqgan_jax.evaluation.protocol import Evaluation
from fqgan_jax.evaluation.reference import MEASURES, Reference
from fqgan_jax.evaluation.sharded_pass import rows_of_examples
from fqgan_jax.model_files import fingerprint
from fqgan_jax.sampling import sample_codes, sampling_options


def evaluate_generator(
    generator: Generator,
    tokenizer: Tokenizer,
    count: int,
    seed: int,
    sampling: dict[str, Sequence[float]],
    reference: Reference | None,
    frozen: Frozen,
    batch_size: int,
) -> Measured:
    """gFID, sFID, precision, recall and inception score of `count` samples, and usage of their codes.

    Sample i has class i modulo the number of classes and a key of its own, so that batches do not matter. `sampling`
    holds guidance, temperature, top_k and top_p (see `sampling_options`).

    Raises:
      UserError: a sampling option out of range.
    """
    far, network = generator.module, frozen.inception
    # Pixels in float32: bfloat16's rounding depends on how a batch is spread over devices.
    module = tokenizer.module.clone(dtype=jnp.float32)
    options = sampling_options(far.num_codebooks, **sampling)

    def batches(size: int) -> Iterator[Batch]:
        for first in range(0, count, size):
            index = np.arange(first, first + size, dtype=np.int32)
            yield {"index": index, "label": index % far.num_classes, "mask": np.float32(index < count)}

    def step(params: PyTree, batch: Batch) -> dict[str, Array]:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), batch["index"])
        codes, _ = sample_codes(far, params["generator"], keys, batch["label"], options)
        rows = {"codes": codes}
        if network:
            decoded = module.apply({"params": params["tokenizer"]}, codes, method="decode")
            rows["features"] = network.apply(params["inception"], to_uint8(decoded))
        return rows

    params = {"generator": generator.params, "tokenizer": tokenizer.params, "inception": network and network.params}
    features, codes = network and FeatureSet(), []
    for rows in rows_of_examples(step, params, batches, batch_size, count, "samples"):
        codes.append(rows["codes"])
        if features is not None:
            features.add(rows["features"])

    found, missing = feature_results(features, reference, MEASURES, frozen)
    named = lambda numbers: {{"fid": "gfid"}.get(name, name): number for name, number in numbers.items()}
    codes = np.concatenate(codes)
    results = named(found) | code_statistics(codes, far.codebook_size)
    protocol = {"task": "generator", "generator": fingerprint({}, generator.params), "tokenizer": tokenizer.fingerprint}
    protocol |= {"count": count, "labels": f"0 to {far.num_classes - 1} in turn", "seed": seed, "sampling": sampling}
    protocol["dtype"] = {"generator": jnp.dtype(far.dtype).name, "tokenizer": "float32"}
    return Measured(Evaluation(results, named(missing), protocol | frozen.protocol(reference)), features, codes)
