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

HELP = "Draw new images from a generator; writes PNGs and a grid with a row per class."
EXAMPLES = """\
  fqgan sample --checkpoint runs/generator --tokenizer runs/tokenizer --out samples
  fqgan sample --checkpoint runs/generator --tokenizer runs/tokenizer --out samples \\
      --labels 0,3,5 --per-class 8 --guidance 2.5 --temperature 1.0,0.9 --top-k 200 --top-p 0.95"""


def add_arguments(parser) -> None:
    add_checkpoint(parser, "generator")
    add_checkpoint(parser, "tokenizer that wrote the generator's codes", "--tokenizer")
    add_out(parser, "folder for the PNGs")
    parser.add_argument("--labels", type=numbers(int), help="class numbers, commas between (default: the first 10)")
    parser.add_argument("--per-class", type=positive, default=8, help="images a class (default: %(default)s)")
    add_sampling(parser)
    add_batch_size(parser, 32)


def run(options) -> None:
    import jax
    import numpy as np
    from tqdm import tqdm

    from fqgan_jax.api import load_generator, load_tokenizer
    from fqgan_jax.evaluation.figures import image_rows, save_picture, to_uint8

    generator, tokenizer = load_generator(options.checkpoint), load_tokenizer(options.tokenizer)
    generator.check_tokenizer(tokenizer)
    classes = options.labels or list(range(min(10, generator.module.num_classes)))
    labels = np.repeat(np.array(classes, np.int32), options.per_class)
    choices = sampling_choices(options)
    images = []
    for first in tqdm(range(0, len(labels), options.batch_size), desc="sample"):
        part = labels[first : first + options.batch_size]
        # The last batch is filled up so that nothing is compiled twice.
        padded = np.resize(part, options.batch_size)
        codes = generator.sample(padded, key=jax.random.key(options.seed), first=first, **choices)
        images.append(np.asarray(tokenizer.decode(codes))[: len(part)])
    images = np.concatenate(images)
    folder = out_folder(options.out)
    for i, (label, image) in enumerate(zip(labels, images, strict=True)):
        name = f"{generator.class_name(label)}_{i % options.per_class:03d}.png".replace(" ", "_").replace("/", "_")
        save_picture(to_uint8(image), folder / name, smallest=0)
    save_picture(image_rows(images.reshape(len(classes), options.per_class, *images.shape[1:])), folder / "grid.png")
    print(f"{len(labels)} samples and grid.png -> {folder}")
