"""`fqgan edit`."""

from pathlib import Path
from typing import TYPE_CHECKING

from fqgan_jax.cli.arguments import (
    add_checkpoint,
    add_out,
    add_sampling,
    numbers,
    out_folder,
    positive,
    sampling_choices,
)
from fqgan_jax.errors import UserError, check
from fqgan_jax.storage import as_path

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool, UInt8

    from fqgan_jax.data.transforms import Size

HELP = "Keep a part of a photograph's codes and draw the rest: continue it, fill it in, change its class."
EXAMPLES = """\
  fqgan edit --checkpoint runs/generator --tokenizer runs/tokenizer --image photo.jpg --keep top --label 3 --out edited
  fqgan edit --checkpoint runs/generator --tokenizer runs/tokenizer --image photo.jpg --keep mask.png --label 3,8 \\
      --count 8 --out edited"""

HALVES = ("left", "right", "top", "bottom")


def add_arguments(parser) -> None:
    """Adds the command's flags."""
    add_checkpoint(parser, "generator")
    add_checkpoint(parser, "tokenizer that wrote the generator's codes", "--tokenizer")
    parser.add_argument("--image", required=True, type=as_path, help="a photograph; its central part is edited")
    parser.add_argument(
        "--keep",
        required=True,
        metavar="PART",
        help=f"the half to keep ({', '.join(HALVES)}), or a picture of the image's size that is white there",
    )
    parser.add_argument("--label", type=numbers(int), required=True, help="class of what is drawn, or several")
    parser.add_argument("--count", type=positive, default=4, help="pictures of each class (default: %(default)s)")
    add_out(parser, "folder for the PNGs, and edited.png with all of them beside the photograph")
    add_sampling(parser)


def run(options) -> None:
    """Draws and writes the pictures."""
    import jax
    import numpy as np

    from fqgan_jax.api import load_generator, load_tokenizer
    from fqgan_jax.data.pixels import to_uint8
    from fqgan_jax.pictures.figures import save_labelled_rows, save_picture

    generator = load_generator(options.checkpoint)
    tokenizer = generator.check_tokenizer(load_tokenizer(options.tokenizer))
    generator.check_labels(options.label)
    f, size = tokenizer.downsampling, tokenizer.image_size
    image = _central_part(options.image, size)
    keep = kept_positions(options.keep, size=size, downsampling=f)
    codes = tokenizer.encode(image[None])[0]
    drawn = generator.sample(
        np.repeat(options.label, options.count),
        key=jax.random.key(options.seed),
        known=codes,
        keep=keep,
        **sampling_choices(options),
    )
    pictures = np.asarray(to_uint8(np.asarray(tokenizer.decode(drawn)))).reshape(-1, options.count, *image.shape)

    folder = out_folder(options.out)
    kept = np.where(np.kron(keep, np.ones((f, f), bool))[..., None], image, 255)
    rows = {"photograph, kept": np.stack([image, kept.astype(np.uint8)])}
    for label, row in zip(options.label, pictures, strict=True):
        rows[generator.class_name(label)] = row
        for i, picture in enumerate(row):
            save_picture(picture, folder / f"{label:03d}_{i:03d}.png", smallest=1)
    save_labelled_rows(rows, folder / "edited.png")
    print(f"{len(drawn)} pictures, {keep.mean():.0%} of the positions kept -> {folder}, all of them in edited.png")


def kept_positions(part: str, *, size: "Size", downsampling: int) -> "Bool[np.ndarray, 'h w']":
    """Returns which positions of the grid to keep.

    Args:
      part: one of `HALVES`, or the path of a mask; a position is kept if most of its pixels are white.
      size: of the image, a side or (height, width).
      downsampling: f.

    Raises:
      UserError: a mask that cannot be read, or that keeps nothing or everything.
    """
    import numpy as np

    from fqgan_jax.data.transforms import height_and_width

    h, w = (side // downsampling for side in height_and_width(size))
    if part in HALVES:
        rows, columns = np.indices((h, w))
        keep = {"left": columns < w / 2, "right": columns >= w / 2, "top": rows < h / 2, "bottom": rows >= h / 2}[part]
    else:
        white = _central_part(as_path(part), size).mean(axis=-1)
        keep = white.reshape(h, downsampling, w, downsampling).mean(axis=(1, 3)) > 127.5
    check(bool(keep.any() and not keep.all()), f"--keep {part} keeps {'all' if keep.all() else 'none'} of the picture.")
    return keep


def _central_part(path: Path, size: "Size") -> "UInt8[np.ndarray, 'H W 3']":
    from fqgan_jax.data.images import UnreadableImageError, read_image
    from fqgan_jax.data.transforms import center_crop

    try:
        return center_crop(read_image(path), size)
    except UnreadableImageError as error:
        raise UserError(f"{path} cannot be read as an image: {error}.") from error
