"""Local copies of objects: read once, bounded, and never of an older version."""

import os
import subprocess
import sys

import pytest

from fqgan_jax.errors import UserError
from fqgan_jax.storage import as_path, cached_bytes, local_copies, local_copy, set_cache


def test_a_local_path_is_its_own_copy(tmp_path):
    assert local_copy(tmp_path / "x") == tmp_path / "x"


def test_parts_are_read_once_and_the_least_used_leave(s3, tmp_path):
    set_cache(str(tmp_path / "objects"), 100e3 / 1e9)
    path = as_path(s3) / "x"
    path.write_bytes(bytes(range(250)) * 4000)
    version = path.stat().version
    first = cached_bytes(path, version, start=1000, stop=11_000)
    assert first == (bytes(range(250)) * 44)[1000:11_000]
    for start in range(20_000, 1_000_000, 10_000):
        cached_bytes(path, version, start=start, stop=start + 10_000)
    kept = sum(file.stat().st_size for file in (tmp_path / "objects").rglob("*") if file.suffix == ".val")
    assert 0 < kept <= 130e3
    path.unlink()
    assert cached_bytes(path, version, start=990_000, stop=1_000_000)  # the last ones are there
    with pytest.raises(FileNotFoundError):
        cached_bytes(path, version, start=1000, stop=11_000)


def test_without_a_cache_nothing_is_kept(s3, tmp_path):
    set_cache(str(tmp_path / "objects"), 0)
    path = as_path(s3) / "x"
    path.write_bytes(b"12345")
    assert cached_bytes(path, "v", start=1, stop=3) == b"23"
    assert not (tmp_path / "objects").exists()


def test_copies_follow_the_object(s3):
    path = as_path(s3) / "x.bin"
    path.write_bytes(b"old")
    assert local_copy(path).read_bytes() == b"old"
    path.write_bytes(b"new!")
    assert local_copy(path).read_bytes() == b"new!"
    assert len(list(local_copy(path).parent.glob("*x.bin"))) == 1
    path.unlink()
    with pytest.raises(FileNotFoundError):
        local_copy(path)


def test_copies_in_use_stay_and_others_leave_when_there_is_no_room(s3, tmp_path):
    set_cache(str(tmp_path / "objects"), 1500 / 1e9)
    paths = [as_path(s3) / folder / "x" for folder in ("a", "b", "c")]
    for path in paths:
        path.write_bytes(bytes(600))
    other = "import sys; from fqgan_jax.storage import *; print(local_copy(as_path(sys.argv[1])))"
    command = [sys.executable, "-c", other, str(paths[0])]  # a process that ends
    [left] = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=True).stdout.split()
    assert os.path.exists(left)
    local_copies([paths[1]])
    kept = local_copies([paths[2]])
    assert kept[0].read_bytes() == bytes(600)
    assert not os.path.exists(left)
    with pytest.raises(UserError, match=r"The files of .*a .* do not fit into the cache .*: make data.cache_gb larger"):
        local_copies([paths[0]])
