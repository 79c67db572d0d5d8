"""tensorflow-datasets that were prepared as ArrayRecord files, read without TensorFlow.

"tfds:NAME[/CONFIG][:VERSION]", as in "tfds:imagenet2012:5.1.0"; the newest version where none is given.
"""

import json
from pathlib import Path

from PIL import Image

from fqgan_jax.data.images import UnreadableImage, read_image
from fqgan_jax.data.sources.splits import EmptySplit, share
from fqgan_jax.errors import UserError

PREFIX = "tfds:"
VALIDATION = ("validation", "val", "test")


class TfdsSource:
    """The images and labels of one split; `test` is the validation split of a dataset that has no other.

    A dataset with a training split alone gives a fixed share of it for validation.
    """

    def __init__(self, name: str, split: str, validation_fraction: float = 0.05, data_dir: str | None = None):
        self._arguments = (name, split, validation_fraction, data_dir)
        self.root = ""
        import tensorflow_datasets as tfds

        folder = _folder(name, Path(data_dir or tfds.core.constants.DATA_DIR).expanduser())
        builder = tfds.builder_from_directory(str(folder))
        features, splits = builder.info.features, builder.info.splits
        self._image = _only(folder, features, tfds.features.Image, "image")
        self._label = _only(folder, features, tfds.features.ClassLabel, "label")
        self.class_names = tuple(features[self._label].names)
        held_out = next((other for other in VALIDATION if other in splits), None)
        chosen = held_out if split == "validation" and held_out else "train"
        if chosen not in splits:
            raise EmptySplit(f"{folder} has no {split} split: it has {', '.join(splits)}.")
        self._prefix = f"{name}/{chosen}"
        decoders = {self._image: tfds.decode.SkipDecoding()}
        self._examples = builder.as_data_source(chosen, decoders=decoders)
        self._positions = range(len(self._examples))
        if held_out is None:
            everything = [(str(i), 0) for i in self._positions]
            self._positions = share(everything, split, validation_fraction)
        if not len(self._positions):
            raise EmptySplit(f"{folder} has no image for the {split} split.")

    def __reduce__(self):
        return type(self), self._arguments  # a builder is opened anew in another process

    def __len__(self) -> int:
        return len(self._positions)

    def name(self, index: int) -> str:
        return f"{self._prefix}/{self._positions[index]}"

    def label(self, index: int) -> int:
        return int(self._examples[self._positions[index]][self._label])

    def encoded(self, index: int) -> bytes:
        try:
            return self._examples[self._positions[index]][self._image]
        except (RuntimeError, ValueError) as error:
            raise UnreadableImage(f"damaged record: {error}") from error

    def read(self, index: int, shortest_side: int | None = None) -> Image.Image:
        return read_image(self.encoded(index), shortest_side)


def _folder(name: str, data_dir: Path) -> Path:
    """The folder of a prepared dataset's version."""
    dataset, _, version = name.removeprefix(PREFIX).partition(":")
    root = data_dir / dataset
    versions = {path.parent.name: path.parent for path in root.glob("*/dataset_info.json")}
    if not dataset or (version and version not in versions) or not versions:
        found = f"; found: {', '.join(sorted(versions))}" if versions else ""
        raise UserError(
            f"There is no prepared dataset {root / version}{found}: give --data-dir (config: data.data_dir), or make "
            f"it with tensorflow-datasets as ArrayRecord (tfds build {dataset or 'NAME'} --file_format=array_record)."
        )
    newest = max(versions, key=lambda version: [int(part) if part.isdecimal() else -1 for part in version.split(".")])
    folder = versions[version or newest]
    kind = json.loads((folder / "dataset_info.json").read_text()).get("fileFormat")
    if kind != "array_record":
        raise UserError(
            f"{folder} is prepared as {kind}, which needs TensorFlow: convert it with "
            "tfds convert_format --out_file_format=array_record, or prepare it with --file_format=array_record."
        )
    return folder


def _only(folder: Path, features, kind: type, usual: str) -> str:
    """The name of the one feature of a kind."""
    names = [name for name, feature in features.items() if isinstance(feature, kind)]
    if usual in names:
        return usual
    if len(names) != 1:
        raise UserError(f"{folder} has {len(names)} features of kind {kind.__name__}; one is needed: {features}.")
    return names[0]
