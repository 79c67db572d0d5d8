"""Tar files in WebDataset layout."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fqgan_jax.cli.main import main
from fqgan_jax.data.sources import open_source
from fqgan_jax.errors import UserError


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def examples(start: int, count: int, label) -> dict[str, bytes]:
    members = {}
    for i in range(start, start + count):
        members |= {f"{i:04d}.png": png(i), f"{i:04d}.cls": str(label(i)).encode(), f"{i:04d}.json": b"{}"}
    return members


def reds(source) -> list[int]:
    return [int(np.asarray(source.read(i))[0, 0, 0]) for i in range(len(source))]


def test_numbered_classes_take_their_names_from_the_file(tmp_path):
    for shard in range(3):
        write_tar(tmp_path / f"imagenet-train-{shard:03d}.tar", examples(4 * shard, 4, lambda i: i % 3))
    write_tar(tmp_path / "imagenet-val-000.tar", examples(100, 3, lambda i: 2))
    (tmp_path / "classnames.txt").write_text("ant\nbee\ncat\n")
    train, validation = (open_source(str(tmp_path), split) for split in ("train", "validation"))
    assert reds(train) == list(range(12))
    assert [train.label(i) for i in range(12)] == [i % 3 for i in range(12)]
    assert train.class_names == validation.class_names == ("ant", "bee", "cat")
    assert reds(validation) == [100, 101, 102]
    assert train.encoded(5) == png(5)
    (tmp_path / "classnames.txt").write_text("ant\n")
    with pytest.raises(UserError, match="names 1 classes"):
        open_source(str(tmp_path), "train")


def test_named_classes_and_folders(tmp_path):
    write_tar(tmp_path / "a" / "0.tar", examples(0, 4, lambda i: ["wasp", "bee"][i % 2]))
    source = open_source(str(tmp_path / "a"), "train", validation_fraction=0)
    assert source.class_names == ("bee", "wasp")
    assert [source.class_names[source.label(i)] for i in range(4)] == ["wasp", "bee"] * 2
    write_tar(tmp_path / "b.tar", {"red/1.png": png(1), "blue/1.png": png(2), "./notes.txt": b"no image"})
    source = open_source(str(tmp_path / "b.tar"), "train", validation_fraction=0)
    assert [source.class_names[source.label(i)] for i in range(2)] == ["red", "blue"]


def test_a_share_is_kept_aside_without_a_split(tmp_path):
    write_tar(tmp_path / "train" / "0.tar", examples(0, 20, lambda i: i % 2))
    splits = [open_source(str(tmp_path / "train"), split, validation_fraction=0.2) for split in ("train", "validation")]
    assert sorted(reds(splits[0]) + reds(splits[1])) == list(range(20))
    assert sorted(splits[1].label(i) for i in range(len(splits[1]))) == [0, 0, 1, 1]


def test_damaged_tar_files_are_explained(tmp_path):
    (tmp_path / "0.tar").write_bytes(b"this is no tar file" * 100)
    with pytest.raises(UserError, match="uncompressed tar file"):
        open_source(str(tmp_path), "train")


def test_prepare_converts_tar_files(tmp_path):
    write_tar(tmp_path / "source" / "train" / "0.tar", examples(0, 6, lambda i: i % 2))
    write_tar(tmp_path / "source" / "val" / "0.tar", examples(50, 2, lambda i: i % 2))
    assert main(["prepare", str(tmp_path / "source"), str(tmp_path / "records"), "--verify"]) == 0
    for split, values in (("train", list(range(6))), ("validation", [50, 51])):
        source = open_source(str(tmp_path / "records"), split)
        assert reds(source) == values
        assert [source.label(i) for i in range(len(source))] == [value % 2 for value in values]


@pytest.mark.parametrize(("written", "label"), [(b"000000000001", 1), (b"0000", 0), (b"1048575", 2**20 - 1)])
def test_numbers_of_classes_may_begin_with_zeros(written, label, tmp_path):
    write_tar(tmp_path / "0.tar", {"a.png": png(0), "a.cls": written})
    assert open_source(str(tmp_path), "train", validation_fraction=0).label(0) == label


@pytest.mark.parametrize("written", [b"1048576", b"9999999999", b"1" * 4000])
def test_numbers_that_are_no_classes_take_no_memory(written, tmp_path):
    write_tar(tmp_path / "0.tar", {"a.png": png(0), "a.cls": written})
    with pytest.raises(UserError, match="numbers of classes lie below 1048576"):
        open_source(str(tmp_path), "train", validation_fraction=0)
