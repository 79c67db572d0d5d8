"""What an ablation measures of a finished run beside its last evaluation.

Of a tokenizer a linear probe, and prefixes if it is nested; of a generator the time of a sample.
"""

import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fqgan_jax import api
from fqgan_jax.evaluation.image_set import ImageSet, open_images
from fqgan_jax.evaluation.networks import load_networks
from fqgan_jax.evaluation.prefixes import headline, measure_prefixes
from fqgan_jax.evaluation.probe import probe_tokenizer
from fqgan_jax.evaluation.protocol import Measurement
from fqgan_jax.evaluation.tokenizer import evaluate_tokenizer
from fqgan_jax.files import read_json, write_atomically
from fqgan_jax.training.from_config import image_size

FILE = "measured.json"


def is_measured(workdir: Path) -> bool:
    """Returns whether a run has been measured by this or another process."""
    return (workdir / FILE).exists()


def measured(workdir: Path, config: ConfigDict, *, probe: bool) -> dict:
    """Returns what `measure_run` found, which is computed once and kept in the work folder.

    Args:
      workdir: of a finished run.
      config: of the run.
      probe: whether to train linear probes on its codes.
    """
    path = workdir / FILE
    if not path.exists():
        write_atomically(path, json.dumps(measure_run(workdir, config, probe=probe), indent=2))
    return read_json(path, remedy="remove it, and it is measured again")


def measure_run(workdir: Path, config: ConfigDict, *, probe: bool) -> dict:
    """Measures a finished run.

    Returns:
      Accuracies of the probes under "probe", and numbers of each prefix of a nested tokenizer under "first", by k; of a
      generator "seconds_a_sample", in a batch of eight.
    """
    model = api.load_model(workdir)
    if isinstance(model, api.Generator):
        return {"seconds_a_sample": seconds_a_sample(model)}
    assert isinstance(model, api.Tokenizer)
    return _measure_tokenizer(model, config, probe=probe)


def seconds_a_sample(generator: "api.Generator", *, batch_size: int = 8, calls: int = 3) -> float:
    """Returns how long a sample takes, in the fastest of several batches, with guidance and without compilation."""
    labels, seconds = np.arange(batch_size) % generator.module.num_classes, []
    for call in range(calls + 1):
        start = time.perf_counter()
        jax.block_until_ready(generator.sample(labels, key=jax.random.key(call)))
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:]) / batch_size


def _measure_tokenizer(tokenizer: "api.Tokenizer", config: ConfigDict, *, probe: bool) -> dict:
    data = config.data
    batch_size = 8 * jax.device_count()

    def images(split: str) -> ImageSet:
        return open_images(data.source, split=split, size=image_size(data), data_dir=data.data_dir or None)

    found: dict[str, Any] = {}
    if probe:
        found["probe"], _ = probe_tokenizer(tokenizer, images("train"), images("validation"), batch_size=batch_size)
    if tokenizer.module.nested:
        networks, validation = load_networks(reconstruction_metrics=True), images("validation")

        def measure(prefix: api.Tokenizer) -> Measurement:
            return evaluate_tokenizer(prefix, validation, reference=None, networks=networks, batch_size=batch_size)

        K = tokenizer.module.num_codebooks
        powers = [2**i for i in range(K.bit_length()) if 2**i <= K]
        prefixes = measure_prefixes(tokenizer, powers, measure)
        found["first"] = {str(prefix.codebooks): headline(prefix) for prefix in prefixes}
    return found
