"""Files of many images, written while the next ones are computed: a folder of PNGs, or one `.npz`."""

import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from fqgan_jax.files import check_writable, whole_file
from fqgan_jax.pictures.figures import save_picture

# Writes images [n, H, W, 3] with their names and labels.
Write = Callable[[UInt8[np.ndarray, "n H W 3"], Sequence[str], Int[np.ndarray, " n"]], None]

MAX_WAITING = 1024  # images queued for writing


@contextmanager
def png_folder(folder: Path) -> Iterator[Write]:
    """Yields a function that writes images as `NAME.png` in threads; all are written when the block ends."""
    waiting: deque[Future] = deque()
    with ThreadPoolExecutor() as threads:

        def write(images, names, labels):
            del labels
            for image, name in zip(images, names, strict=True):
                waiting.append(threads.submit(save_picture, image, folder / f"{name}.png", smallest=0))
            while len(waiting) > MAX_WAITING:
                waiting.popleft().result()

        yield write
        for written in waiting:
            written.result()


@contextmanager
def npz_file(path: Path, count: int) -> Iterator[Write]:
    """Yields a function that appends images to `arr_0` and labels to `arr_1` of an `.npz`, as ADM's evaluation wants.

    The file appears when the block ends and must then hold `count` images; only one batch is in memory.

    Raises:
      UserError: the file cannot be created.
    """
    check_writable(path)
    labels_so_far: list[Int[np.ndarray, " n"]] = []
    with whole_file(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as member:

            def write(images, names, labels):
                del names
                if not labels_so_far:
                    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *images.shape[1:])}
                    np.lib.format.write_array_header_1_0(member, header)
                member.write(np.ascontiguousarray(images).data)
                labels_so_far.append(labels)

            yield write
        labels = np.concatenate(labels_so_far)
        if len(labels) != count:
            raise ValueError(f"{len(labels)} images were written, not {count}")
        with archive.open("arr_1.npy", "w") as file:
            np.lib.format.write_array(file, labels)
