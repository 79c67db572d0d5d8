"""`fqgan reconstruct`."""

import itertools

from fqgan_jax.cli.arguments import add_checkpoint, add_codebooks, add_out, out_folder, positive
from fqgan_jax.errors import UserError
from fqgan_jax.storage import as_path

HELP = "Encode and decode images; writes each beside its reconstruction and prints its PSNR."
EXAMPLES = """\
  fqgan reconstruct --checkpoint runs/tokenizer --out pictures photo.jpg other.png"""


def add_arguments(parser) -> None:
    """Adds the command's flags."""
    add_checkpoint(parser, "tokenizer")
    add_codebooks(parser)
    add_out(parser, "folder for the PNGs")
    parser.add_argument(
        "--max-side",
        type=positive,
        default=1024,
        help="larger images are scaled down to it; memory grows with the square of their area (default: %(default)s)",
    )
    parser.add_argument("images", nargs="+", type=as_path, metavar="IMAGE", help="image files of any size")


def run(options) -> None:
    """Writes the pictures; files that are no images are named and skipped."""
    import numpy as np

    from fqgan_jax.api import load_tokenizer
    from fqgan_jax.data.images import UnreadableImageError
    from fqgan_jax.data.pixels import to_float
    from fqgan_jax.evaluation.metrics.reconstruction_metrics import psnr
    from fqgan_jax.pictures.figures import image_rows, save_picture
    from fqgan_jax.pictures.single_image import decode_image, encode_image, read_scaled

    tokenizer = load_tokenizer(options.checkpoint).first(options.codebooks)
    folder = out_folder(options.out)
    names: set[str] = set()
    num_written = 0
    for path in options.images:
        try:
            image = read_scaled(path, options.max_side)
        except UnreadableImageError as error:
            print(f"Skipped {path}: {error}")
            continue
        original = to_float(image)[None]
        reconstruction = decode_image(tokenizer, encode_image(tokenizer, image))[None]
        picture = folder / f"{_new_name(path.stem, names)}_reconstruction.png"
        save_picture(image_rows([np.concatenate([original, reconstruction])]), picture)
        print(f"{path}: PSNR {float(psnr(original, reconstruction)[0]):.2f} dB -> {picture}")
        num_written += 1
    if num_written == 0:
        raise UserError("None of the given files is a readable image.")


def _new_name(stem: str, names: set[str]) -> str:
    """Returns the stem, with a number if another image had that name, and adds it to the names."""
    candidates = (f"{stem}_{number}" if number > 1 else stem for number in itertools.count(1))
    name = next(name for name in candidates if name not in names)
    names.add(name)
    return name
