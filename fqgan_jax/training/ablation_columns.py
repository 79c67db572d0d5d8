"""The columns of an ablation's table: what a finished run of each task says of itself."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from jax import tree
from ml_collections import ConfigDict

from fqgan_jax import api
from fqgan_jax.config import Registry

BITS = "bits per position"
HELD_OUT = "held-out loss (nats)"
# Columns of numbers that an evaluation gives, by their names there.
TITLES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "rfid": "rFID", "lpips": "LPIPS"}
TITLES |= {"next_code": HELD_OUT, "gfid": "gFID"}
TITLES |= {name: name for name in ("fd_lite0", "class_agreement", "lite0_score")}

Columns = dict[str, float]
Log = Sequence[Mapping[str, float]]
# A row is a function of a run's log and of what was measured of it, by the name of the task.
columns: Registry[Callable[[Log, Mapping], Columns]] = Registry("ablation's columns")


@columns("tokenizer")
def tokenizer_columns(log: Log, found: Mapping) -> Columns:
    """Returns the last evaluation: usage of the worst sub-codebook, mutual information as the mean over pairs."""
    last = last_evaluation(log, "psnr")
    parts = {name: _parts(last, name) for name in ("usage", "perplexity", "mutual_information")}
    values = titled(last) | {name: min(parts[name]) for name in ("usage", "perplexity")}
    if parts["mutual_information"]:
        values["mutual information (nats)"] = statistics.mean(parts["mutual_information"])
    return values | found.get("probe", {})


@columns("generator")
def generator_columns(log: Log, found: Mapping) -> Columns:
    """Returns the last evaluation, the held-out loss of each sub-codebook too, and the time of a sample."""
    last = last_evaluation(log, "next_code")
    losses = {f"loss of sub-codebook {k}": loss for k, loss in enumerate(_parts(last, "next_code"))}
    return titled(last) | losses | {"seconds a sample": found["seconds_a_sample"]}


def last_evaluation(log: Log, needed: str) -> Columns:
    """Returns the numbers of the last evaluation that has one of this name."""
    last = next(line for line in reversed(log) if f"validation/{needed}" in line)
    return {name.removeprefix("validation/"): value for name, value in last.items()}


def titled(numbers: Mapping[str, float]) -> Columns:
    """Returns an evaluation's numbers by the titles of their columns."""
    return {title: numbers[name] for name, title in TITLES.items() if name in numbers}


def _parts(numbers: Mapping[str, float], name: str) -> list[float]:
    return [value for key, value in numbers.items() if key.startswith(f"{name}/")]


@cache  # the sizes of a finished run stay
def sizes(workdir: Path) -> Columns:
    """Returns K, N, bits per position and the number of parameters of a finished run's model."""
    model = api.load_model(workdir)
    K, N = model.module.num_codebooks, model.module.codebook_size
    num_params = sum(leaf.size for leaf in tree.leaves(model.params))
    return {"K": K, "N": N, BITS: K * math.log2(N), "parameters (millions)": num_params / 1e6}


def speed(config: ConfigDict, log: Log) -> Columns:
    """Returns the median speed, and the chip-hours of the training steps alone at that speed."""
    rate = statistics.median(line["images_per_second_per_chip"] for line in log if "images_per_second_per_chip" in line)
    images = config.train.steps * config.data.batch_size
    return {"images/s per chip": rate, "chip-hours": images / rate / 3600}
