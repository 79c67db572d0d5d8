"""The whole path on two CPU cores: train a tokenizer, tokenize, train a generator, sample, report."""

import math
import time
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from fqgan_jax import api
from fqgan_jax.caches.codes import MANIFEST, CodeCache
from fqgan_jax.caches.tokenize import tokenize_splits
from fqgan_jax.config import load_config
from fqgan_jax.data.loader import evaluation_batches
from fqgan_jax.data.pixels import to_float
from fqgan_jax.data.skipping import Skipped
from fqgan_jax.data.sources import open_source
from fqgan_jax.errors import UserError
from fqgan_jax.pictures.curves import points, save_curves
from fqgan_jax.pictures.figures import save_labelled_rows
from fqgan_jax.pictures.report import Row, write_report
from fqgan_jax.training.logging import read_log
from fqgan_jax.training.loop import train

SHOWN_CLASSES = 10
PANELS = {
    "reconstruction loss": ("tokenizer", "reconstruction"),
    "held-out PSNR (dB)": ("tokenizer", "validation/psnr"),
    "perplexity of the codes": ("tokenizer", "perplexity/0", "perplexity/1"),
    "feature prediction (InfoNCE)": ("tokenizer", "feature/0"),
    "disentanglement": ("tokenizer", "disentanglement"),
    "next-code loss (nats)": ("generator", "next_code/0", "next_code/1", "validation/next_code"),
}


def run_demo(data: str, workdir: Path, *, teacher: str = "hog", quick: bool = False) -> Path:
    """Runs every stage that the work folder does not hold yet; returns the report's path.

    Args:
      data: an image source.
      workdir: holds the stages' results.
      teacher: of the last sub-codebook; "none" for none.
      quick: trains for a tenth of the steps, to see that everything runs.

    Raises:
      UserError: unreadable data, or a work folder of another run.
    """
    start = time.monotonic()
    config = load_config(f"configs/demo_tokenizer.py:teacher={teacher}", [f"--config.data.source={data}"])
    train(_shortened(config) if quick else config, workdir / "tokenizer")
    tokenizer = api.load_tokenizer(workdir / "tokenizer")
    _tokenize_once(tokenizer, data, workdir / "codes")
    overrides = [f"--config.data.codes={workdir / 'codes'}", f"--config.sample.tokenizer={workdir / 'tokenizer'}"]
    config = load_config("configs/demo_generator.py", overrides)
    train(_shortened(config) if quick else config, workdir / "generator")
    generator = api.load_generator(workdir / "generator")

    _picture_reconstructions(tokenizer, data, workdir / "reconstructions.png")
    _picture_samples(generator, tokenizer, workdir / "samples.png")
    runs = {name: read_log(workdir / name) for name in ("tokenizer", "generator")}
    panels = {title: {name: points(runs[run], name) for name in names} for title, (run, *names) in PANELS.items()}
    save_curves(panels, workdir / "curves.png")
    rows = _table(tokenizer, runs, time.monotonic() - start)
    for row in rows:
        print(f"{row.name:>42}  {row.value}")
    captions = {
        "reconstructions.png": "Held-out crops: originals above their reconstructions.",
        "samples.png": "New samples, a row per class.",
        "curves.png": "Training of both networks.",
    }
    pictures = {workdir / name: caption for name, caption in captions.items()}
    write_report(workdir / "report.html", f"fqgan demo: {data}", rows=rows, pictures=pictures)
    return workdir / "report.html"


def _shortened(config: ConfigDict) -> ConfigDict:
    """Returns the config with a tenth of the steps, of its warm-up and of its periods."""
    shorter = config.copy_and_resolve_references()
    for section, field in (
        ("train", "steps"),
        ("train", "log_every"),
        ("train", "evaluate_every"),
        ("train", "checkpoint_every"),
        ("optimizer", "warmup_steps"),
    ):
        shorter[section][field] = math.ceil(config[section][field] / 10)
    return shorter


def _tokenize_once(tokenizer: api.Tokenizer, data: str, folder: Path) -> None:
    if not (folder / MANIFEST).exists():
        tokenize_splits(tokenizer, {split: open_source(data, split) for split in ("train", "validation")}, folder)
    elif CodeCache(folder).manifest.tokenizer != tokenizer.fingerprint:
        raise UserError(f"The code cache {folder} was written by another tokenizer: remove it, or choose --workdir.")


def _picture_reconstructions(tokenizer: api.Tokenizer, data: str, path: Path, columns: int = 10) -> None:
    """Saves two double rows of held-out crops, evenly spread over the classes."""
    source, wanted = open_source(data, "validation"), 2 * columns
    chosen = np.unique(np.linspace(0, len(source) - 1, wanted).astype(int))
    batches = evaluation_batches(source, image_size=tokenizer.image_size, batch_size=len(source), skipped=Skipped())
    images = to_float(next(batches)["image"][chosen])
    decoded = np.asarray(tokenizer.decode(tokenizer.encode(images)))
    rows: dict[str, np.ndarray] = {}
    for i in range(0, len(images), columns):
        suffix = "" if i == 0 else " "  # names are keys: the second pair differs by a space
        rows |= {f"original{suffix}": images[i : i + columns], f"reconstruction{suffix}": decoded[i : i + columns]}
    save_labelled_rows(rows, path)


def _picture_samples(generator: api.Generator, tokenizer: api.Tokenizer, path: Path, columns: int = 8) -> None:
    names = generator.class_names[:SHOWN_CLASSES]
    labels = np.repeat(np.arange(len(names)), columns)
    codes = generator.sample(labels, key=jax.random.key(0))
    images = np.asarray(tokenizer.decode(codes))
    images = images.reshape(len(names), columns, *images.shape[1:])
    save_labelled_rows(dict(zip(names, images, strict=True)), path)


def _table(tokenizer: api.Tokenizer, runs: dict[str, list[dict]], seconds: float) -> list[Row]:
    module = tokenizer.module
    of_entries = f"of {module.codebook_size} entries"

    def last(run: str, name: str) -> float:
        return next(line[name] for line in reversed(runs[run]) if name in line)

    def each(run: str, name: str, form: str) -> str:
        return ", ".join(f"{last(run, f'{name}/{k}'):{form}}" for k in range(module.num_codebooks))

    return [
        Row("held-out PSNR", f"{last('tokenizer', 'validation/psnr'):.2f} dB", "higher is better"),
        Row("held-out SSIM", f"{last('tokenizer', 'validation/ssim'):.3f}", "higher is better"),
        Row("bits per position", f"{module.num_codebooks * math.log2(module.codebook_size):g}"),
        Row("usage of each sub-codebook", each("tokenizer", "usage", ".0%"), of_entries),
        Row("usage on held-out crops", each("tokenizer", "validation/usage", ".0%"), of_entries),
        Row("perplexity of each sub-codebook", each("tokenizer", "perplexity", ".0f"), of_entries),
        Row("perplexity on held-out crops", each("tokenizer", "validation/perplexity", ".0f"), of_entries),
        Row("next-code loss of each sub-codebook", each("generator", "next_code", ".2f") + " nats", "lower is better"),
        Row(
            "next-code loss on held-out crops",
            each("generator", "validation/next_code", ".2f") + " nats",
            "lower is better",
        ),
        Row("time", f"{seconds:.0f} s"),
    ]
