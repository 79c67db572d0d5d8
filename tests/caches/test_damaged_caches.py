"""Caches whose manifest and records do not agree are refused by a sentence, before training reads nonsense."""

import json
import shutil

import numpy as np
import pytest

from fqgan_jax.caches.codes import CodeCache
from fqgan_jax.caches.teacher_features import FeatureCache
from fqgan_jax.cli.main import main
from fqgan_jax.data.sources import open_source
from fqgan_jax.errors import UserError


@pytest.fixture
def codes(code_cache, tmp_path):
    return shutil.copytree(code_cache, tmp_path / "codes")


@pytest.fixture(scope="module")
def written(image_folder, tmp_path_factory):
    """A feature cache and a prepared folder of the images."""
    folder, images = tmp_path_factory.mktemp("written"), str(image_folder)
    command = ["features", "--teacher", "hog", "--data", images, "--augmentations", "2", "--image-size", "16"]
    assert main([*command, "--out", str(folder / "features")]) == 0
    assert main(["prepare", images, str(folder / "records")]) == 0
    return folder


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def cut_labels(path, labels):
    content = json.loads(path.read_text())
    content["splits"]["train"][0]["labels"] = labels
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "fields",
    [
        {"num_codebooks": 10**9},
        {"num_codebooks": 0},
        {"codebook_size": -4},
        {"codebook_size": "32"},
        {"grid": [8]},
        {"grid": 8},
        {"grid": [8, 2**60]},
        {"crops": 0},
        {"kind": "none"},
        {"class_names": 3},
        {"class_names": [1, 2]},
        {"tokenizer": None},
        {"count": -1},
        {"shards": None},
        {"shards": [1]},
        {"shards": [{"file": "../x", "count": 1, "bytes": 1}]},
        {"shards": [{"file": "x", "count": 1e30, "bytes": 1}]},
    ],
    ids=str,
)
def test_manifests_of_codes_out_of_range(fields, codes):
    change(codes / "codes.json", **fields)
    with pytest.raises(UserError, match=f"codes.json: .*{next(iter(fields))}"):
        CodeCache(codes)


@pytest.mark.parametrize(
    "fields",
    [
        *({"grid": [4, 4]}, {"grid": [16, 8]}, {"num_codebooks": 3}, {"crops": 1}, {"codebook_size": 2}),
        *({"class_names": []}, {"codebook_size": 2**20}),
    ],
    ids=str,
)
def test_codes_that_do_not_fit_their_manifest(fields, codes):
    change(codes / "codes.json", **fields)
    cache = CodeCache(codes)
    with pytest.raises(UserError, match=r"does not fit its codes\.json"):
        [cache[index] for index in range(len(cache))]


@pytest.mark.parametrize("damage", ["zeroed", "flipped", "cut", "other"])
def test_damaged_shards(damage, codes, written, tmp_path):
    """A sentence when the folder is opened, or when a record is read; never other codes."""
    expected = [(label, read.copy()) for label, read in map(CodeCache(codes).__getitem__, range(len(CodeCache(codes))))]
    shard = sorted(codes.glob("*.array_record"))[0]
    content = bytearray(shard.read_bytes())
    if damage == "zeroed":
        content = bytearray(len(content))
    elif damage == "flipped":
        content[len(content) // 3] ^= 255
    elif damage == "cut":
        content = content[:-7]
    else:
        content = bytearray(sorted(codes.glob("*.array_record"))[-1].read_bytes())
    shard.write_bytes(content)
    try:
        cache = CodeCache(codes)
        read = [cache[index] for index in range(len(cache))]
    except UserError:
        return
    for (label, found), (expected_label, other) in zip(read, expected, strict=True):
        assert label == expected_label
        np.testing.assert_array_equal(found, other)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": "16"}, "image_size"),
        ({"augmentations": 0}, "augmentations"),
        ({"teachers": []}, "teachers"),
        ({"teachers": {"hog": {"width": 10**12, "weights": ""}}}, "width"),
        ({"teachers": {"hog": 3}}, "write it again"),
        ({"augmentations": 3}, r"does not fit its features\.json"),
        ({"teachers": {"hog": {"width": 7, "weights": ""}}}, r"does not fit its features\.json"),
    ],
    ids=str,
)
def test_features_that_do_not_fit_their_manifest(fields, message, written, tmp_path):
    folder = shutil.copytree(written / "features", tmp_path / "features")
    change(folder / "features.json", **fields)
    with pytest.raises(UserError, match=message):
        FeatureCache(folder)[0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[7, 11], [1, 11]], "is 7: give a whole number from 0 to 1"),
        ([[-1, 11], [1, 11]], "is -1"),
        ([[0, 10**9]], "1000000000 labels"),
        ([[0, 0], [1, 22]], "is 0: give"),
        ([["a", 11]], "is 'a'"),
        (3, "damaged"),
    ],
    ids=str,
)
def test_labels_of_prepared_records_out_of_range(labels, message, written, tmp_path):
    folder = shutil.copytree(written / "records", tmp_path / "records")
    cut_labels(folder / "manifest.json", labels)
    with pytest.raises(UserError, match=message):
        open_source(str(folder), "train")


def test_images_replaced_after_preparing_are_noticed(image_folder, tmp_path, capsys):
    images = shutil.copytree(image_folder, tmp_path / "images")
    command = ["prepare", str(images), str(tmp_path / "records")]
    assert main(command) == 0
    assert main(command) == 0  # finished: nothing to do
    shutil.copy(images / "red" / "01.png", images / "red" / "00.png")
    assert main(command) == 2
    assert "written from other images" in capsys.readouterr().err


def test_a_damaged_note_is_written_again(image_folder, tmp_path):
    from fqgan_jax.data.shards import ShardFolder, shard_specs

    folder = ShardFolder(path=tmp_path, manifest="m.json", command="fqgan prepare")
    (spec,) = shard_specs("train", 1, 4)
    for content in ("", "{", "[]", '{"count": -1}', '{"file": "x"}'):
        (tmp_path / f".{spec.file}.json").write_text(content)
        assert folder.read_note(spec) is None
