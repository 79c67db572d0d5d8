"""Image folders, tar files and prepared records in object storage give what they give on the local disk."""

import pickle
from pathlib import Path

import pytest
from support.object_storage import FaultyProxy, environment, upload

from fqgan_jax.data.preparation.pool import Pool
from fqgan_jax.data.preparation.prepare import Settings, prepare
from fqgan_jax.data.preparation.verify import verify
from fqgan_jax.data.sources import open_source, source_state
from fqgan_jax.data.sources.source import fingerprint
from fqgan_jax.errors import UserError
from fqgan_jax.storage import as_path, paths

from .test_tars import examples, write_tar


def content(source) -> list:
    return [
        (source.name(i).removeprefix(source.root), source.label(i), source.encoded(i), source.class_names)
        for i in range(len(source))
    ]


def assert_same(folder: Path, url: str) -> None:
    for split in ("train", "validation"):
        local, remote = (open_source(str(name), split) for name in (folder, url))
        assert content(remote) == content(local)
        assert content(pickle.loads(pickle.dumps(remote))) == content(local)
        assert fingerprint(remote) == fingerprint(local)
        assert remote.read(0).size == local.read(0).size


@pytest.mark.parametrize("has_splits", [False, True])
def test_image_folders(bucket_folder, image_folder, tmp_path, has_splits):
    folder = image_folder
    if has_splits:
        folder = tmp_path / "data"
        folder.mkdir()
        for split in ("train", "val"):
            (folder / split).symlink_to(image_folder)
        for split in ("train", "val"):
            upload(image_folder, f"{bucket_folder}/{split}")
    else:
        upload(folder, bucket_folder)
    assert_same(folder, bucket_folder)
    with pytest.raises(UserError, match=rf"There is no folder {bucket_folder}/none: give one of"):
        open_source(f"{bucket_folder}/none", "train")


def test_changed_images_are_noticed_without_reading_them(s3, image_folder):
    upload(image_folder, s3)
    before = source_state(open_source(s3, "train"), "files")
    assert source_state(open_source(s3, "train"), "files") == before
    path = as_path(open_source(s3, "train").name(0))
    path.write_bytes(path.read_bytes() + b"0")
    assert source_state(open_source(s3, "train"), "files") != before


def test_tar_files(bucket_folder, tmp_path):
    for shard in range(2):
        write_tar(tmp_path / "tars" / f"{shard}.tar", examples(6 * shard, 6, lambda i: i % 3))
    (tmp_path / "tars" / "classnames.txt").write_text("ant\nbee\ncat\n")
    upload(tmp_path / "tars", bucket_folder)
    assert_same(tmp_path / "tars", bucket_folder)
    assert_same(tmp_path / "tars" / "0.tar", f"{bucket_folder}/0.tar")


def test_records_are_prepared_in_a_bucket_from_a_bucket(bucket_folder, image_folder, tmp_path):
    upload(image_folder, f"{bucket_folder}/images")
    settings = Settings(images_per_shard=7)
    prepare(str(image_folder), tmp_path / "records", settings, pool=Pool(2))
    url = f"{bucket_folder}/records"
    prepare(f"{bucket_folder}/images", as_path(url), settings, pool=Pool(2))
    assert_same(tmp_path / "records", url)
    assert verify(as_path(url), Pool(2)) == 24
    local, remote = (
        {path.name: path.read_bytes() for path in folder.glob("*.array_record")}
        for folder in (tmp_path / "records", as_path(url))
    )
    assert local == remote
    [first, *_] = sorted(remote)
    (as_path(url) / first).unlink()
    with pytest.raises(UserError, match=rf"{url}/{first} is missing: copy the folder again"):
        open_source(url, "train")


@pytest.mark.slow
def test_one_request_in_five_fails(s3, s3_url, image_folder, monkeypatch):
    monkeypatch.setattr(paths, "PAUSES", (0.05,) * 6)
    upload(image_folder, s3)
    with FaultyProxy(s3_url, every=5) as proxy, environment(AWS_ENDPOINT_URL=proxy.url):
        assert_same(image_folder, s3)
    assert sum(proxy.faults.values()) > 3


def test_tensorflow_datasets_are_no_buckets():
    with pytest.raises(UserError, match=r"gs://bucket/tfds: prepared tensorflow-datasets are read from a folder"):
        open_source("tfds:cifar10", "train", data_dir="gs://bucket/tfds")
