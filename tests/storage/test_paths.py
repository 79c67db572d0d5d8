"""Paths of object storage do what local paths do, on servers that answer, fail for a while, or refuse."""

import pickle
from pathlib import Path

import pytest
from support.object_storage import FaultyProxy, environment, free_port

from fqgan_jax.errors import UserError
from fqgan_jax.files import read_json, whole_file, whole_folder, write_atomically
from fqgan_jax.storage import ObjectPath, as_path, paths


def test_what_is_a_path_and_what_a_url():
    assert as_path("runs/x") == Path("runs/x")
    assert as_path(Path("runs")) == Path("runs")
    assert as_path("file:///runs/x") == Path("/runs/x")
    path = as_path("s3://bucket/runs/x@best")
    assert isinstance(path, ObjectPath)
    assert str(path) == "s3://bucket/runs/x@best"
    assert str(path.with_name("y") / "z.png") == "s3://bucket/runs/y/z.png"
    assert [str(parent) for parent in path.parents] == ["s3://bucket/runs", "s3://bucket"]
    assert pickle.loads(pickle.dumps(path)) == path
    with pytest.raises(TypeError, match="no local file"):
        path.__fspath__()


def listed(root: Path) -> dict:
    """What can be seen below a folder through the methods that both kinds have."""
    names = ("a.json", "b.png", "deep", "deep/c.json", "nothing")
    seen = {name: (root / name) for name in names}
    return {
        "kinds": {name: (path.exists(), path.is_file(), path.is_dir()) for name, path in seen.items()},
        "content": [path.read_bytes() for path in seen.values() if path.is_file()],
        "sizes": [path.stat().st_size for path in seen.values() if path.is_file()],
        "children": sorted(path.name for path in root.iterdir()),
        "glob": sorted(path.relative_to(root).as_posix().split("/")[-1] for path in root.glob("*.json")),
        "deep glob": sorted(path.name for path in root.glob("*/*.json")),
        "no glob": list((root / "nothing").glob("*")),
    }


def test_methods_agree_with_those_of_local_paths(bucket_folder, tmp_path):
    for root in (tmp_path / "x", as_path(bucket_folder)):
        assert not root.exists()
        (root / "deep").mkdir(parents=True, exist_ok=True)
        write_atomically(root / "a.json", '{"a": 1}')
        write_atomically(root / "deep" / "c.json", b"")
        write_atomically(root / "gone", "x")
        (root / "gone").unlink()
        (root / "gone").unlink(missing_ok=True)
        with whole_file(root / "b.png") as partial:
            partial.write_bytes(b"picture")
        with pytest.raises(FileNotFoundError), whole_file(root / "half"):
            (tmp_path / "missing").read_bytes()
    assert listed(as_path(bucket_folder)) == listed(tmp_path / "x")
    assert read_json(as_path(bucket_folder) / "a.json", remedy="") == {"a": 1}
    with pytest.raises(FileNotFoundError):
        (as_path(bucket_folder) / "nothing").read_bytes()
    found = {str(path)[len(bucket_folder) + 1 :]: path.stat().st_size for path in as_path(bucket_folder).files()}
    assert found == {"a.json": 8, "b.png": 7, "deep/c.json": 0}
    as_path(bucket_folder).remove_tree()
    assert not as_path(bucket_folder).exists()


def test_folders_are_whole_or_absent(bucket_folder):
    out = as_path(bucket_folder) / "out"
    with pytest.raises(FileNotFoundError), whole_folder(out) as filled:
        (filled / "missing").read_bytes()
    assert not out.exists()
    with whole_folder(out) as filled:
        (filled / "deep").mkdir()
        (filled / "deep" / "part").write_text("x")
        (filled / "last").write_text("y")
    assert (out / "deep" / "part").read_text() == "x"
    with pytest.raises(UserError, match="exists already"), whole_folder(out):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["s3", "gs"])
def test_one_request_in_five_may_fail(protocol, request, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "PAUSES", (0.05,) * 6)
    bucket_folder = request.getfixturevalue(protocol)
    url = request.getfixturevalue({"s3": "s3_url", "gs": "gcs_url"}[protocol])
    variable = {"s3": "AWS_ENDPOINT_URL", "gs": "STORAGE_EMULATOR_HOST"}[protocol]
    with FaultyProxy(url, every=5) as proxy, environment(**{variable: proxy.url}):
        for number in range(20):
            path = as_path(bucket_folder) / f"{number}.bin"
            path.write_bytes(bytes([number]) * 5000)
            assert path.stat().st_size == 5000
            assert path.read_bytes() == bytes([number]) * 5000
            assert path.read_range(4998, 5000) == bytes([number]) * 2
            path.download(tmp_path / "copy")
            assert (tmp_path / "copy").read_bytes() == bytes([number]) * 5000
        assert len(list(as_path(bucket_folder).iterdir())) == 20
        (as_path(bucket_folder) / "3.bin").unlink()
        assert not (as_path(bucket_folder) / "3.bin").exists()
    assert len([kind for kind in proxy.faults if kind]) >= 4, proxy.faults


@pytest.mark.slow  # the client makes attempts of its own
def test_sentences_name_the_url_and_say_what_to_do(s3, s3_url, monkeypatch):
    monkeypatch.setattr(paths, "PAUSES", (0.01,))
    with pytest.raises(UserError, match=r"There is no bucket s3://missing: make it first"):
        write_atomically(as_path("s3://missing/x"), "x")
    with pytest.raises(UserError, match=r"There is no bucket s3://missing: make it first"):
        as_path("s3://missing/x").check_bucket()
    with pytest.raises(UserError, match=r"abc://bucket/x is in no known storage .*: give gs://, s3:// or a folder"):
        as_path("abc://bucket/x").exists()
    refused = pytest.raises(UserError, match=rf"{s3}/x cannot be used \(.*\): set credentials that may")
    with FaultyProxy(s3_url, every=1, kinds=("403",)) as proxy, environment(AWS_ENDPOINT_URL=proxy.url), refused:
        write_atomically(as_path(s3) / "x", "x")
    away = pytest.raises(UserError, match=rf"{s3}/x cannot be reached \(.*\): try again when the storage answers")
    with environment(AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}"), away:
        (as_path(s3) / "x").read_bytes()


def test_missing_credentials_are_named(s3, s3_url, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    files = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), "/nowhere")
    sentence = rf"{s3}/x cannot be used \(.*credentials.*\): set credentials .*AWS_ACCESS_KEY_ID.*, or choose another"
    with (
        environment(AWS_ENDPOINT_URL=s3_url, AWS_EC2_METADATA_DISABLED="true", **files),
        pytest.raises(UserError, match=sentence),
    ):
        write_atomically(as_path(s3) / "x", "x")


def test_a_client_that_is_not_installed_is_named(monkeypatch):
    def missing(protocol, **_):
        raise ImportError(f"Install {protocol}")

    monkeypatch.setattr(paths.fsspec, "filesystem", missing)
    with pytest.raises(UserError, match=r"gs://b/x needs a client that is not installed: pip install fqgan-jax\[gcs\]"):
        as_path("gs://b/x").exists()
