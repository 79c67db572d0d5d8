"""`fqgan sample`."""

from fqgan_jax.cli.arguments import (
    add_batch_size,
    add_checkpoint,
    add_out,
    add_sampling,
    numbers,
    out_folder,
    positive,
    sampling_choices,
)

HELP = "Draw new images from a generator; writes PNGs or an .npz, and a grid with a row per class."
EXAMPLES = """\
  fqgan sample --checkpoint runs/generator --tokenizer runs/tokenizer --out samples
  fqgan sample --checkpoint runs/generator --tokenizer runs/tokenizer --out samples \\
      --labels 0,3,5 --per-class 8 --guidance 2.5 --temperature 1.0,0.9 --top-k 200 --top-p 0.95
  fqgan sample --checkpoint runs/generator --tokenizer runs/tokenizer --out samples.npz --count 50000"""

GRID_ROWS, GRID_COLUMNS = 10, 8


def add_arguments(parser) -> None:
    add_checkpoint(parser, "generator")
    add_checkpoint(parser, "tokenizer that wrote the generator's codes", "--tokenizer")
    add_out(
        parser,
        "folder for the PNGs, or FILE.npz (arr_0 images, arr_1 labels, as ADM's evaluation reads them); the grid is "
        "written beside it as a .png",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--labels", type=numbers(int), help="class numbers, commas between (default: the first 10)")
    which.add_argument(
        "--count", type=positive, help="images of all classes in turn, the same as fqgan evaluate draws and measures"
    )
    parser.add_argument(
        "--per-class", type=positive, default=8, help="images of each of --labels (default: %(default)s)"
    )
    add_sampling(parser)
    add_batch_size(parser, 32)


def run(options) -> None:
    import numpy as np

    from fqgan_jax.api import load_generator, load_tokenizer
    from fqgan_jax.evaluation.generator import draw_samples
    from fqgan_jax.models.sampling import sampling_options
    from fqgan_jax.pictures.figures import image_rows, save_picture
    from fqgan_jax.pictures.sample_files import npz_file, png_folder
    from fqgan_jax.sharding.processes import is_first

    generator, tokenizer = load_generator(options.checkpoint), load_tokenizer(options.tokenizer)
    generator.check_tokenizer(tokenizer)
    labels = _labels(options, generator.module.num_classes)
    generator.check_labels(labels)
    names = _names(labels, generator.class_names)

    choices = sampling_options(generator.module.num_codebooks, **sampling_choices(options))
    drawn = draw_samples(
        generator.module,
        generator.params,
        labels,
        seed=options.seed,
        options=choices,
        batch_size=options.batch_size,
        tokenizer=tokenizer,
    )
    if not is_first():
        for _ in drawn:  # takes part in the computation
            pass
        return

    shown = {label: [] for label in list(dict.fromkeys(labels.tolist()))[:GRID_ROWS]}
    is_file = options.out.suffix == ".npz"
    with npz_file(options.out, len(labels)) if is_file else png_folder(out_folder(options.out)) as write:
        done = 0
        for rows in drawn:
            here = slice(done, done + len(rows["image"]))
            write(rows["image"], names[here], labels[here])
            done = here.stop
            for label, image in zip(labels[here].tolist(), rows["image"], strict=True):
                if label in shown and len(shown[label]) < GRID_COLUMNS:
                    shown[label].append(image)
    grid = options.out.with_name(options.out.name.removesuffix(".npz") + ".png")
    save_picture(image_rows([np.stack(images) for images in shown.values()]), grid)
    print(f"{len(labels)} samples -> {options.out}, a grid of them -> {grid}")


def _labels(options, num_classes: int):
    """The class of each sample, int32."""
    import numpy as np

    if options.count:
        return np.arange(options.count, dtype=np.int32) % num_classes
    return np.repeat(np.array(options.labels or range(min(10, num_classes)), np.int32), options.per_class)


def _names(labels, class_names: tuple[str, ...]) -> list[str]:
    """A file name for each sample: number and name of its class, and which of the class it is."""
    from collections import Counter

    seen, names = Counter(), []
    for label in labels.tolist():
        name = f"{label:03d}_{class_names[label]}" if class_names else f"{label:03d}"
        names.append(f"{name}_{seen[label]:03d}".replace(" ", "_").replace("/", "_"))
        seen[label] += 1
    return names
