"""Pictures of a generator: its samples at several scales of guidance."""

from pathlib import Path

import jax
import numpy as np

from fqgan_jax.api import Generator, Tokenizer
from fqgan_jax.evaluation.protocol import Measurement
from fqgan_jax.pictures.code_pictures import code_pictures
from fqgan_jax.pictures.figures import save_labelled_rows

GUIDANCE = (1.0, 2.0, 4.0)
SHOWN_CLASSES = 8
PER_CLASS = 8


def generator_pictures(
    generator: Generator, tokenizer: Tokenizer, measured: Measurement, *, folder: Path
) -> dict[Path, str]:
    """Writes the PNGs of a generator's evaluation into a folder; returns their captions."""
    protocol, names = measured.evaluation.protocol, generator.class_names[:SHOWN_CLASSES]
    labels = np.repeat(np.arange(len(names)), PER_CLASS)
    pictures = {}
    for guidance in GUIDANCE:
        sampling = protocol["sampling"] | {"guidance": guidance}
        codes = generator.sample(labels, key=jax.random.key(protocol["seed"]), **sampling)
        images = np.asarray(tokenizer.decode(codes))
        rows = images.reshape(len(names), PER_CLASS, *images.shape[1:])
        path = folder / f"samples_guidance_{guidance:g}.png"
        save_labelled_rows(dict(zip(names, rows, strict=True)), path)
        pictures[path] = f"Samples, a row per class, guidance {guidance:g}."
    return pictures | code_pictures(measured, generator.module.codebook_size, folder)
