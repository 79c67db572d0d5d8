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
    import jax.numpy as jnp
    import numpy as np

    from fqgan_jax.api import load_generator, load_tokenizer
    from fqgan_jax.evaluation.figures import image_rows, save_picture, to_uint8
    from fqgan_jax.evaluation.generator_evaluation import sampling_step
    from fqgan_jax.sampling import sampling_options
    from fqgan_jax.sharding.passes import rows_of_examples
    from fqgan_jax.sharding.processes import is_first

    generator, tokenizer = load_generator(options.checkpoint), load_tokenizer(options.tokenizer)
    generator.check_tokenizer(tokenizer)
    classes = options.labels or list(range(min(10, generator.module.num_classes)))
    labels = np.repeat(np.array(classes, np.int32), options.per_class)
    generator.check_labels(labels)
    choices = sampling_options(generator.module.num_codebooks, **sampling_choices(options))

    def batches(size: int):
        for first in range(0, len(labels), size):
            index = np.arange(first, first + size, dtype=np.int32)
            yield {"index": index, "label": np.resize(labels[first:], size), "mask": np.float32(index < len(labels))}

    arguments = {"generator": generator.params, "options": choices, "seed": jnp.uint32(options.seed)}
    step, count = sampling_step(generator.module), len(labels)
    images = []
    for rows in rows_of_examples(step, arguments, batches, options.batch_size, count, "sample"):
        codes = rows["codes"]
        # The last ones are filled up so that nothing is compiled twice.
        padded = np.resize(codes, (len(images[0]) if images else len(codes), *codes.shape[1:]))
        images.append(np.asarray(tokenizer.decode(padded))[: len(codes)])
    images = np.concatenate(images)
    if not is_first():
        return
    folder = out_folder(options.out)
    for i, (label, image) in enumerate(zip(labels, images, strict=True)):
        name = f"{generator.class_name(label)}_{i % options.per_class:03d}.png".replace(" ", "_").replace("/", "_")
        save_picture(to_uint8(image), folder / name, smallest=0)
    save_picture(image_rows(images.reshape(len(classes), options.per_class, *images.shape[1:])), folder / "grid.png")
    print(f"{len(labels)} samples and grid.png -> {folder}")
