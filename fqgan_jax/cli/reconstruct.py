"""`fqgan reconstruct`."""

from pathlib import Path

from fqgan_jax.cli.arguments import add_checkpoint, add_out, out_folder, positive
from fqgan_jax.errors import UserError

HELP = "Encode and decode images; writes each beside its reconstruction and prints its PSNR."
EXAMPLES = """\
  fqgan reconstruct --checkpoint runs/tokenizer --out pictures photo.jpg other.png"""


def add_arguments(parser) -> None:
    add_checkpoint(parser, "tokenizer")
    add_out(parser, "folder for the PNGs")
    parser.add_argument(
        "--max-side",
        type=positive,
        default=1024,
        help="larger images are scaled down to it; memory grows with the square of their area (default: %(default)s)",
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files of any size")


def run(options) -> None:
    import numpy as np

    from fqgan_jax.api import load_tokenizer
    from fqgan_jax.data.images import UnreadableImage, read_image
    from fqgan_jax.data.pixels import to_float
    from fqgan_jax.evaluation.metrics import psnr
    from fqgan_jax.pictures.figures import image_rows, save_picture

    tokenizer = load_tokenizer(options.checkpoint)
    folder = out_folder(options.out)
    done = 0
    for path in options.images:
        try:
            image = read_image(path, options.max_side)
            image.thumbnail((options.max_side, options.max_side))
            image = np.asarray(image)
        except UnreadableImage as error:
            print(f"Skipped {path}: {error}")
            continue
        # Edges are repeated up to the next multiple of f, and cut off again.
        height, width = image.shape[:2]
        f = tokenizer.downsampling
        padded = np.pad(image, ((0, -height % f), (0, -width % f), (0, 0)), mode="edge")
        decoded = np.asarray(tokenizer.decode(tokenizer.encode(padded[None])))[:, :height, :width]
        original = to_float(image[None])
        target = folder / f"{path.stem}_reconstruction.png"
        save_picture(image_rows([np.concatenate([original, decoded])]), target)
        print(f"{path}: PSNR {float(psnr(original, decoded)[0]):.2f} dB -> {target}")
        done += 1
    if not done:
        raise UserError("None of the given files is a readable image.")
