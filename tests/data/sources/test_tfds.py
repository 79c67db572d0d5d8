"""A tensorflow-datasets dataset as ArrayRecord, written and read without TensorFlow."""

import io
import json
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from fqgan_jax.cli.main import main
from fqgan_jax.data.sources import open_source
from fqgan_jax.errors import UserError
from fqgan_jax.evaluation.image_set import open_images

NAMES = ["tench", "goldfish", "shark"]


def pixels(split: str, i: int) -> np.ndarray:
    return np.random.default_rng([len(split), i]).integers(0, 255, (12, 10, 3), np.uint8)


def write_dataset(data_dir, version: str, counts: dict[str, int]) -> None:
    """What `tfds build --file_format=array_record` leaves, through the parts of its library that need no TensorFlow."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.core import example_serializer

    folder = data_dir / "tiny" / version
    folder.mkdir(parents=True)
    image = tfds.features.Image(encoding_format="png")
    features = tfds.features.FeaturesDict({"image": image, "label": tfds.features.ClassLabel(names=NAMES)})
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    splits = []
    for split, count in counts.items():
        writer = ArrayRecordWriter(str(folder / f"tiny-{split}.array_record-00000-of-00001"), "group_size:1")
        for i in range(count):
            buffer = io.BytesIO()
            Image.fromarray(pixels(split, i)).save(buffer, "PNG")
            buffer.seek(0)
            example = features.encode_example({"image": buffer, "label": NAMES[i % 3]})
            writer.write(serializer.serialize_example(example))
        writer.close()
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        splits.append({"name": split, "shardLengths": [str(count)], "numBytes": "1", "filepathTemplate": template})
    features.save_config(str(folder))
    info = {"name": "tiny", "version": version, "fileFormat": "array_record", "splits": splits}
    (folder / "dataset_info.json").write_text(json.dumps(info))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    write_dataset(folder, "1.0.0", {"train": 7, "validation": 3})
    write_dataset(folder, "1.10.0", {"train": 10})
    write_dataset(folder, "1.9.0", {"train": 2, "test": 4})
    return folder


@pytest.mark.parametrize(("split", "count"), [("train", 7), ("validation", 3)])
def test_images_labels_and_class_names(data_dir, split, count):
    source = open_source("tfds:tiny:1.0.0", split, data_dir=str(data_dir))
    assert source.class_names == tuple(NAMES)
    assert len(source) == count
    for source_ in (source, pickle.loads(pickle.dumps(source))):  # as worker processes get it
        for i in range(count):
            np.testing.assert_array_equal(source_.read(i), pixels(split, i))
            assert source_.label(i) == i % 3
    assert "tensorflow" not in sys.modules


def test_the_newest_version_and_the_validation_split(data_dir):
    train, validation = (
        open_source("tfds:tiny", split, validation_fraction=0.3, data_dir=str(data_dir))
        for split in ("train", "validation")
    )
    assert (len(train), len(validation)) == (7, 3)  # 1.10.0 has no other split than train
    found = [np.asarray(source.read(i)) for source in (train, validation) for i in range(len(source))]
    for i in range(10):
        assert any((image == pixels("train", i)).all() for image in found)
    assert len(open_source("tfds:tiny:1.9.0", "validation", data_dir=str(data_dir))) == 4


def test_what_is_missing_is_explained(data_dir, tmp_path):
    for name, message in (
        ("tfds:tiny:3.0.0", "found: 1.0.0, 1.10.0, 1.9.0"),
        ("tfds:none", "--file_format=array_record"),
        ("tfds:", "There is no prepared dataset"),
    ):
        with pytest.raises(UserError, match=message):
            open_source(name, "train", data_dir=str(data_dir))
    (tmp_path / "old" / "1.0.0").mkdir(parents=True)
    (tmp_path / "old" / "1.0.0" / "dataset_info.json").write_text('{"fileFormat": "tfrecord"}')
    with pytest.raises(UserError, match="prepared as tfrecord"):
        open_source("tfds:old", "train", data_dir=str(tmp_path))


def test_prepare_keeps_images_labels_and_names(data_dir, tmp_path):
    command = ["prepare", "tfds:tiny:1.0.0", str(tmp_path / "records"), "--data-dir", str(data_dir), "--verify"]
    assert main([*command, "--processes", "--workers", "2"]) == 0
    source = open_source(str(tmp_path / "records"), "validation")
    assert source.class_names == tuple(NAMES)
    for i in range(3):
        np.testing.assert_array_equal(source.read(i), pixels("validation", i))
        assert source.label(i) == i % 3


def test_evaluation_reads_a_dataset_where_it_lies(data_dir):
    images = open_images("tfds:tiny:1.0.0", split="validation", size=8, data_dir=str(data_dir))
    assert images.protocol(3)["name"] == "tfds:tiny:1.0.0"
    assert next(images.batches(4))["mask"].tolist() == [1, 1, 1, 0]
