"""tensorflow-datasets that were prepared as ArrayRecord files, read without TensorFlow.

They are named "tfds:NAME[/CONFIG][:VERSION]", as in "tfds:imagenet2012:5.1.0". Without a version, the newest is read.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fqgan_jax.data.images import UnreadableImageError
from fqgan_jax.data.sources.source import Source, sources
from fqgan_jax.data.sources.splits import EmptySplitError, split_positions
from fqgan_jax.errors import UserError, check
from fqgan_jax.files import read_json
from fqgan_jax.storage import as_path, in_storage

PREFIX = "tfds:"
VALIDATION_NAMES = ("validation", "val", "test")


@sources("tfds")
class TfdsSource(Source):
    """Images and labels of one split; `test` is the validation split of a dataset that has no other.

    A fixed part of a dataset with a training split alone is held out for validation.
    """

    usage = "tfds:NAME[:VERSION]"

    @staticmethod
    def recognizes(name: str) -> bool:
        """Whether a name begins with "tfds:"."""
        return name.startswith(PREFIX)

    def __init__(self, name: str, split: str, *, validation_fraction: float = 0.05, data_dir: str | None = None):
        import tensorflow_datasets as tfds

        self._reopen = partial(TfdsSource, name, split, validation_fraction=validation_fraction, data_dir=data_dir)
        check(
            not in_storage(as_path(data_dir or "")),
            f"{data_dir}: prepared tensorflow-datasets are read from a folder: mount the bucket, or copy them with "
            "fqgan prepare.",
        )
        folder = _version_folder(name, Path(data_dir or tfds.core.constants.DATA_DIR).expanduser())
        builder = tfds.builder_from_directory(str(folder))
        features, splits = builder.info.features, builder.info.splits
        self._image = _only_feature(folder, features, tfds.features.Image, usual="image")
        self._label = _only_feature(folder, features, tfds.features.ClassLabel, usual="label")
        self.class_names = tuple(features[self._label].names)
        own_validation = next((other for other in VALIDATION_NAMES if other in splits), None)
        chosen = own_validation if split == "validation" and own_validation else "train"
        if chosen not in splits:
            raise EmptySplitError(f"{folder} has no {split} split: it has {', '.join(splits)}.")
        self._prefix = f"{name}/{chosen}"
        self._files = sorted(folder.glob("*.array_record*"))
        decoders = {self._image: tfds.decode.SkipDecoding()}
        self._examples = builder.as_data_source(chosen, decoders=decoders)
        self._positions: Sequence[int] = range(len(self._examples))
        if own_validation is None:
            names_and_labels = [(str(i), 0) for i in self._positions]
            self._positions = split_positions(names_and_labels, split, validation_fraction)
        if not len(self._positions):
            raise EmptySplitError(f"{folder} has no image for the {split} split.")

    def __reduce__(self):
        return self._reopen, ()  # another process opens a builder of its own

    def __len__(self) -> int:
        return len(self._positions)

    def name(self, index: int) -> str:
        """Name of the dataset and position in its split."""
        return f"{self._prefix}/{self._positions[index]}"

    def label(self, index: int) -> int:
        """Label, from the example."""
        return int(self._examples[self._positions[index]][self._label])

    def files(self) -> list[Path]:
        """The record files."""
        return self._files

    def encoded(self, index: int) -> bytes:
        """Content of the image file, from the example."""
        try:
            return self._examples[self._positions[index]][self._image]
        except (RuntimeError, ValueError) as error:
            raise UnreadableImageError(f"damaged record: {error}") from error


def _version_folder(name: str, data_dir: Path) -> Path:
    """Returns the folder of a prepared dataset's version."""
    dataset, _, version = name.removeprefix(PREFIX).partition(":")
    root = data_dir / dataset
    versions = {path.parent.name: path.parent for path in root.glob("*/dataset_info.json")}
    if not dataset or (version and version not in versions) or not versions:
        found = f"; found: {', '.join(sorted(versions))}" if versions else ""
        raise UserError(
            f"There is no prepared dataset {root / version}{found}: give --data-dir (config: data.data_dir), or make "
            f"it with tensorflow-datasets as ArrayRecord (tfds build {dataset or 'NAME'} --file_format=array_record)."
        )
    folder = versions[version or max(versions, key=_version_order)]
    file_format = read_json(folder / "dataset_info.json", remedy="prepare the dataset again").get("fileFormat")
    if file_format != "array_record":
        raise UserError(
            f"{folder} is prepared as {file_format}, which needs TensorFlow: convert it with "
            "tfds convert_format --out_file_format=array_record, or prepare it with --file_format=array_record."
        )
    return folder


def _version_order(version: str) -> list[int]:
    return [int(part) if part.isdecimal() else -1 for part in version.split(".")]


def _only_feature(folder: Path, features, kind: type, *, usual: str) -> str:
    """Returns the name of the only feature of a kind, or the usual name if there is such a feature."""
    names = [name for name, feature in features.items() if isinstance(feature, kind)]
    if usual in names:
        return usual
    if len(names) != 1:
        raise UserError(f"{folder} has {len(names)} features of kind {kind.__name__}; one is needed: {features}.")
    return names[0]
