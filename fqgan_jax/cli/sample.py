"""`fqgan sample`."""

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fqgan_jax.cli.arguments import (
    add_batch_size,
    add_checkpoint,
    add_out,
    add_sampling,
    add_sweep,
    count,
    numbers,
    out_folder,
    sampling_choices,
)
from fqgan_jax.errors import check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from jaxtyping import Int

    from fqgan_jax.api import Generator, Tokenizer
    from fqgan_jax.pictures.sample_files import Write

MANY_PROCESSES = True
SWEEP_COLUMNS = 8  # samples of a row, if no labels are given
HELP = "Draw new images from a generator; writes PNGs or an .npz, and a grid with a row per class."
EXAMPLES = """\
  fqgan sample --checkpoint runs/generator --tokenizer runs/tokenizer --out samples
  fqgan sample --checkpoint runs/generator --tokenizer runs/tokenizer --out samples \\
      --labels 0,3,5 --per-class 8 --guidance 2.5 --temperature 1.0,0.9 --top-k 200 --top-p 0.95
  fqgan sample --checkpoint runs/generator --tokenizer runs/tokenizer --out samples.npz --count 50000
  fqgan sample --checkpoint runs/generator --tokenizer runs/tokenizer --out grid.png --sweep guidance=1:4:1"""


def add_arguments(parser) -> None:
    """Adds the command's flags."""
    add_checkpoint(parser, "generator")
    add_checkpoint(parser, "tokenizer that wrote the generator's codes", "--tokenizer")
    add_out(
        parser,
        "folder for PNGs, or FILE.npz (as ADM's evaluation reads it); a .png beside it shows some",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--labels", type=numbers(int), help="class numbers, commas between (default: the first 10)")
    which.add_argument("--count", type=count, help="images of all classes in turn, as fqgan evaluate draws them")
    parser.add_argument("--per-class", type=count, default=8, help="images of each of --labels (default: %(default)s)")
    add_sampling(parser)
    add_sweep(parser, "a row of one picture (--out) for each value")
    add_batch_size(parser, 32)


def run(options) -> None:
    """Draws the samples on all processes; the first one writes them."""
    import numpy as np

    from fqgan_jax.api import load_generator, load_tokenizer
    from fqgan_jax.pictures.sample_grid import SampleGrid
    from fqgan_jax.sharding.processes import is_first

    generator = load_generator(options.checkpoint)
    labels = _labels(options, generator.module.num_classes)
    generator.check_labels(labels)
    labels = labels.astype(np.int32)
    if options.sweep:
        check(options.out.suffix == ".png", f"--sweep draws one picture: give --out FILE.png, not {options.out}.")
    tokenizer = generator.check_tokenizer(load_tokenizer(options.tokenizer))
    draw = partial(_drawn_images, options, generator, tokenizer)
    if options.sweep:
        _save_sweep(options, draw, labels)
        return
    batches = draw(labels)
    if not is_first():
        for _ in batches:  # takes part in the computation
            pass
        return

    names, grid = file_names(labels, generator.class_names), SampleGrid(labels)
    if options.out.is_dir():
        others = sorted({path.stem for path in options.out.glob("*.png")} - set(names))
        check(not others, f"{options.out} holds other pictures ({', '.join(others[:3])}): choose another --out.")
    with _writer(options.out, len(labels)) as write:
        done = 0
        for images in batches:
            part = slice(done, done + len(images))
            write(images, names[part], labels[part])
            grid.add(images, labels[part])
            done = part.stop
    grid_file = options.out.with_name(options.out.name.removesuffix(".npz") + ".png")
    grid.save(grid_file)
    print(f"{len(labels)} samples -> {options.out}, a grid of them -> {grid_file}")


def file_names(labels: "Int[np.ndarray, ' n']", class_names: "Sequence[str]") -> list[str]:
    """Returns a file name for each sample: number and name of its class, and its number among samples of the class."""
    from collections import Counter

    seen: Counter[int] = Counter()
    names = []
    for label in labels.tolist():
        name = f"{label:03d}_{class_names[label]}" if class_names else f"{label:03d}"
        names.append(f"{name}_{seen[label]:03d}".replace(" ", "_").replace("/", "_"))
        seen[label] += 1
    return names


def _labels(options, num_classes: int) -> "Int[np.ndarray, ' n']":
    """The class of each sample, not checked yet."""
    import numpy as np

    if options.count:
        return np.arange(options.count) % num_classes
    chosen = options.labels or range(min(10, num_classes))
    return np.repeat(np.array(chosen), options.per_class)


def _save_sweep(options, draw: "Callable[..., Iterator[np.ndarray]]", labels: "Int[np.ndarray, ' n']") -> None:
    """Writes a picture: a row for each combination of values, a column for each of the labels."""
    import numpy as np

    from fqgan_jax.evaluation.sweep import grid, parse_sweep
    from fqgan_jax.pictures.figures import save_labelled_rows
    from fqgan_jax.sharding.processes import is_first

    shown = labels if options.labels else np.unique(labels)[:SWEEP_COLUMNS]
    rows = {}
    for swept in grid([parse_sweep(text) for text in options.sweep]):
        drawn = list(draw(shown, **{name: [value] for name, value in swept.items()}))
        rows[", ".join(f"{name} {value:g}" for name, value in swept.items())] = np.concatenate(drawn)
    if is_first():
        out_folder(options.out.parent)
        save_labelled_rows(rows, options.out)
        print(f"{len(rows)} rows of {len(shown)} samples -> {options.out}")


def _drawn_images(
    options, generator: "Generator", tokenizer: "Tokenizer", labels: "Int[np.ndarray, ' n']", **changed: list
) -> "Iterator[np.ndarray]":
    """The samples' images in order, uint8 [n, H, W, 3] at a time."""
    from fqgan_jax.evaluation.generator import draw_samples
    from fqgan_jax.models.sampling_options import sampling_options

    batches = draw_samples(
        generator.module,
        generator.params,
        labels,
        seed=options.seed,
        options=sampling_options(generator.module.num_codebooks, **(sampling_choices(options) | changed)),
        batch_size=options.batch_size,
        tokenizer=tokenizer,
    )
    return (rows["image"] for rows in batches)


def _writer(out: Path, count: int) -> "AbstractContextManager[Write]":
    """What writes the images: to one .npz file, or to PNGs in a folder."""
    from fqgan_jax.pictures.sample_files import npz_file, png_folder

    return npz_file(out, count) if out.suffix == ".npz" else png_folder(out_folder(out))
