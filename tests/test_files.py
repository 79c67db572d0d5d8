"""Files are whole or absent, are read without hanging, and are written by one process at a time."""

import json
import os
import subprocess
import sys
import threading

import pytest

from fqgan_jax.errors import UserError
from fqgan_jax.files import (
    check_writable,
    lock_file,
    read_json,
    read_regular_file,
    whole_file,
    write_atomically,
)


def test_a_link_in_the_way_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in (".o.json.partial", "o.json"):
        (tmp_path / name).symlink_to(victim)
    write_atomically(tmp_path / "o.json", "new")
    assert victim.read_text() == "mine"
    assert (tmp_path / "o.json").read_text() == "new"
    assert not (tmp_path / "o.json").is_symlink()


def test_a_failed_block_leaves_nothing(tmp_path):
    (tmp_path / "x").write_text("old")
    block = whole_file(tmp_path / "x")
    block.__enter__().write_text("half")
    assert not block.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_missing_folders_are_made(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "c.json", "{}")
    assert (tmp_path / "a" / "b" / "c.json").read_text() == "{}"


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        read_regular_file(tmp_path / "pipe")
    with pytest.raises(UserError, match="cannot be read \\(no regular file\\): mend it"):
        read_json(tmp_path / "pipe", remedy="mend it")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[1]", "holds no JSON object"),
        (b"3", "holds no JSON object"),
    ],
)
def test_damaged_json_is_a_sentence(content, message, tmp_path):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=f"{message}.*: restore it"):
        read_json(tmp_path / "x.json", remedy="restore it")
    (tmp_path / "x.json").write_text(json.dumps({"a": 1}))
    assert read_json(tmp_path / "x.json", remedy="restore it") == {"a": 1}


def test_only_one_holds_a_lock(tmp_path):
    path = tmp_path / ".lock"
    with lock_file(path, refusal="taken"), pytest.raises(UserError, match="taken"), lock_file(path, refusal="taken"):
        pass
    with lock_file(path, refusal="taken"):
        pass
    assert not path.exists()


def test_many_writers_never_meet(tmp_path):
    """Writers that try again and again, while each removes the file when it is done."""
    inside, meetings = [], []

    def write():
        for _ in range(300):
            try:
                with lock_file(tmp_path / ".lock", refusal="taken"):
                    inside.append(1)
                    meetings.append(len(inside))
                    inside.pop()
            except UserError:
                pass

    writers = [threading.Thread(target=write) for _ in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert max(meetings) == 1


def test_the_lock_of_a_killed_process_is_not_in_the_way(tmp_path):
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom fqgan_jax.files import lock_file\n"
        "with lock_file(Path(sys.argv[1]), refusal='taken'):\n  print('held', flush=True)\n  time.sleep(60)\n"
    )
    path = tmp_path / ".lock"
    process = subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="taken"), lock_file(path, refusal="taken"):
        pass
    process.kill()
    process.wait()
    assert path.exists()
    with lock_file(path, refusal="taken"):
        pass


def test_what_cannot_be_written_is_known_before(tmp_path):
    (tmp_path / "file").write_text("")
    check_writable(tmp_path / "new" / "folder")
    check_writable(tmp_path / "file")
    with pytest.raises(UserError, match="file is no folder"):
        check_writable(tmp_path / "file" / "x.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
