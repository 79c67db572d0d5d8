"""`fqgan reconstruct`."""

from pathlib import Path
from typing import TYPE_CHECKING

from fqgan_jax.cli.arguments import add_checkpoint, add_codebooks, add_out, out_folder, positive
from fqgan_jax.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, UInt8

    from fqgan_jax.api import Tokenizer

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
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files of any size")


def run(options) -> None:
    """Writes the pictures; files that are no images are named and skipped."""
    import numpy as np

    from fqgan_jax.api import load_tokenizer
    from fqgan_jax.data.images import UnreadableImageError
    from fqgan_jax.data.pixels import to_float
    from fqgan_jax.evaluation.metrics.reconstruction_metrics import psnr
    from fqgan_jax.pictures.figures import image_rows, save_picture

    tokenizer = load_tokenizer(options.checkpoint).first(options.codebooks)
    folder = out_folder(options.out)
    num_written = 0
    for path in options.images:
        try:
            image = _read(path, options.max_side)
        except UnreadableImageError as error:
            print(f"Skipped {path}: {error}")
            continue
        original, reconstruction = to_float(image)[None], _reconstruct(tokenizer, image)[None]
        picture = folder / f"{path.stem}_reconstruction.png"
        save_picture(image_rows([np.concatenate([original, reconstruction])]), picture)
        print(f"{path}: PSNR {float(psnr(original, reconstruction)[0]):.2f} dB -> {picture}")
        num_written += 1
    if num_written == 0:
        raise UserError("None of the given files is a readable image.")


def _read(path: Path, max_side: int) -> "UInt8[np.ndarray, 'H W 3']":
    """Reads an image, scaled down until no side is longer than `max_side`."""
    import numpy as np

    from fqgan_jax.data.images import read_image

    image = read_image(path, max_side)
    image.thumbnail((max_side, max_side))
    return np.asarray(image)


def _reconstruct(tokenizer: "Tokenizer", image: "UInt8[np.ndarray, 'H W 3']") -> "Float[np.ndarray, 'H W 3']":
    """Encodes and decodes an image of any size: its edges are repeated up to the next multiple of f, and cut off."""
    import numpy as np

    (height, width), f = image.shape[:2], tokenizer.downsampling
    padded = np.pad(image, ((0, -height % f), (0, -width % f), (0, 0)), mode="edge")
    return np.asarray(tokenizer.decode(tokenizer.encode(padded[None])))[0, :height, :width]
