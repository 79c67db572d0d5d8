"""`fqgan prepare`: what is written, resumption after kills, and refusals."""

import hashlib
import io
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fqgan_jax.cli.main import main
from fqgan_jax.data.loader import image_batches
from fqgan_jax.data.preparation.pool import Pool
from fqgan_jax.data.preparation.prepare import Settings, stored_bytes
from fqgan_jax.data.preparation.verify import verify
from fqgan_jax.data.skipping import Skipped
from fqgan_jax.data.sources import open_source
from fqgan_jax.data.sources.folder import ImageFolder
from fqgan_jax.data.stream import Stream
from fqgan_jax.errors import UserError


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def prepare(source, folder, *flags) -> int:
    return main(["prepare", str(source), str(folder), "--workers", "2", *flags])


@pytest.fixture(scope="module")
def prepared(image_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "records"
    assert prepare(image_folder, folder, "--validation-fraction", "0.25", "--images-per-shard", "4", "--verify") == 0
    return folder


@pytest.mark.parametrize("split", ["train", "validation"])
def test_records_hold_the_files_of_the_source(image_folder, prepared, split):
    source, records = ImageFolder(str(image_folder), split, validation_fraction=0.25), open_source(str(prepared), split)
    assert len(records) == len(source) == {"train": 18, "validation": 6}[split]
    assert records.class_names == source.class_names == ("blue", "red")
    for i in range(len(source)):
        assert records.encoded(i) == Path(source.name(i)).read_bytes()
        assert records.label(i) == source.label(i)
        assert records.name(i) == str(Path(source.name(i)).relative_to(image_folder))
        np.testing.assert_array_equal(records.read(i), source.read(i))


def test_training_sees_the_batches_of_the_folder(image_folder, prepared):
    folder, records = (
        ImageFolder(str(image_folder), "train", validation_fraction=0.25),
        open_source(str(prepared), "train"),
    )
    stream = Stream(batch_size=8)
    streams = [image_batches(source, stream, image_size=16, skipped=Skipped()) for source in (folder, records)]
    for one, other in itertools.islice(zip(*streams, strict=True), 3):
        np.testing.assert_array_equal(one["image"], other["image"])
        np.testing.assert_array_equal(one["label"], other["label"])


def test_the_manifest_counts_and_sums(prepared):
    manifest = json.loads((prepared / "manifest.json").read_text())
    assert manifest["totals"]["train"]["images"] == 18
    shards = [shard for shards in manifest["splits"].values() for shard in shards]
    assert len(shards) == 5 + 2
    assert {shard["file"] for shard in shards} | {"manifest.json"} == set(contents(prepared))
    for shard in shards:
        content = (prepared / shard["file"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (shard["bytes"], shard["sha256"])
        assert sum(count for _, count in shard["labels"]) == shard["count"]


def test_processes_write_the_same_as_threads(image_folder, prepared, tmp_path):
    flags = ["--validation-fraction", "0.25", "--images-per-shard", "4", "--processes"]
    assert prepare(image_folder, tmp_path / "records", *flags) == 0
    assert contents(tmp_path / "records") == contents(prepared)


def test_a_smaller_shorter_side_is_stored_as_jpeg(tmp_path):
    ramp = np.linspace(0, 255, 300).astype(np.uint8)
    Image.fromarray(np.stack([np.tile(ramp, (200, 1))] * 3, -1)).save(tmp_path / "ramp.png")
    content = stored_bytes((tmp_path / "ramp.png").read_bytes(), Settings(shorter_side=100))
    with Image.open(tmp_path / "ramp.png") as image:
        expected = np.asarray(image.resize((150, 100), Image.Resampling.BOX), int)
    small = Image.open(io.BytesIO(content))
    assert small.format == "JPEG"
    assert np.abs(np.asarray(small, int) - expected).max() <= 3
    # What is small already stays byte for byte.
    content = (tmp_path / "ramp.png").read_bytes()
    assert stored_bytes(content, Settings(shorter_side=200)) == content


def test_damage_is_found(prepared, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(prepared, copy)
    shard = sorted(copy.glob("train-*"))[2]
    content = bytearray(shard.read_bytes())
    content[70000] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=f"{shard.name} does not have its checksum"):
        verify(copy, Pool(2))
    shard.unlink()
    with pytest.raises(UserError, match=f"{shard.name} is missing"):
        open_source(str(copy), "train")


def test_other_folders_are_left_alone(image_folder, prepared, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert prepare(image_folder, tmp_path) == 2
    assert "holds other files (thesis.tex)" in capsys.readouterr().err
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}
    before = contents(prepared)
    assert prepare(image_folder, prepared, "--validation-fraction", "0.5") == 2
    assert "other settings" in capsys.readouterr().err
    assert contents(prepared) == before


def test_duplicate_names_are_refused(tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            tar.add(tmp_path / "a.png", "red/a.png")
    assert prepare(tmp_path, tmp_path / "records") == 2
    assert "two images named red/a " in capsys.readouterr().err
    assert not (tmp_path / "records").exists()


def test_a_full_disk_is_one_sentence_and_what_is_finished_stays(image_folder, tmp_path):
    """The limit of a file's size stands for the disk's: the system refuses to write in the same way."""
    source, folder = tmp_path / "source", tmp_path / "records"
    shutil.copytree(image_folder, source)
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    Image.fromarray(noise).save(source / "red" / "99.png")  # the shard with it becomes too large
    command = ["prepare", str(source), str(folder), "--images-per-shard", "4", "--workers", "1"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    limited = [
        "bash",
        "-c",
        'ulimit -f 195 && exec "$@"',
        "bash",
    ]  # KiB; set by a shell, for JAX's threads forbid a fork
    run = [*limited, sys.executable, "-m", "fqgan_jax.cli.main", *command]
    failed = subprocess.run(run, env=environment, capture_output=True, text=True)
    assert failed.returncode == 2
    assert "File too large" in failed.stderr
    assert "Traceback" not in failed.stderr
    finished = {name: content for name, content in contents(folder).items() if name.startswith("train")}
    assert finished
    assert main(command) == 0
    everything = contents(folder)
    assert all(everything[name] == content for name, content in finished.items())
    assert prepare(source, folder, "--images-per-shard", "4", "--verify") == 0


def test_files_and_folders_without_permission_are_named(image_folder, tmp_path):
    """As another user where the tests run as root, who may read everything."""
    source = tmp_path / "source"
    shutil.copytree(image_folder, source)
    above = [folder for folder in tmp_path.parents if folder.is_relative_to(tempfile.gettempdir())][:-1]
    for folder in (*above, tmp_path, source, source / "red", source / "blue"):
        folder.chmod(0o755)
    (source / "red" / "05.png").chmod(0)
    open_folder, closed_folder = tmp_path / "open", tmp_path / "closed"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    closed_folder.mkdir(mode=0o555)
    # A first run as the tests' own user imports everything, from places that the other user may not read.
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from fqgan_jax.cli.main import main;"
        "main(['prepare', 'photos', sys.argv[2]]); os.getuid() or os.setuid(65534); sys.exit(main(sys.argv[3:]))"
    )
    project = str(Path(__file__).parents[2])
    run = [sys.executable, "-c", script, project, str(tmp_path / "photos"), "prepare", str(source)]
    denied = f"Permission denied ({source / 'red' / '05.png'})"
    for folder, message in ((open_folder, denied), (closed_folder / "records", "closed is read-only")):
        failed = subprocess.run([*run, str(folder)], capture_output=True, text=True, cwd="/")
        assert failed.returncode == 2, failed.stderr
        assert message in failed.stderr
        assert "Traceback" not in failed.stderr


@pytest.mark.slow
def test_twenty_kills_leave_no_trace(tmp_path):
    """Killed at random moments of its work, then run again: byte for byte what an undisturbed run writes."""
    rng = np.random.default_rng(0)
    for name in ("blue", "red"):
        (tmp_path / "source" / name).mkdir(parents=True)
        for i in range(60):
            pixels = rng.integers(0, 255, (40, 50, 3), np.uint8)
            Image.fromarray(pixels).resize((500, 400)).save(tmp_path / "source" / name / f"{i:02d}.jpg")
    (tmp_path / "source" / "red" / "07.jpg").write_bytes(b"damaged")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}

    def start(folder, *flags):
        settings = ["--shorter-side", "200", "--images-per-shard", "4", "--workers", "2", *flags]
        command = [sys.executable, "-m", "fqgan_jax.cli.main", "prepare", str(tmp_path / "source"), str(folder)]
        return subprocess.Popen([*command, *settings], env=environment, stderr=subprocess.DEVNULL)

    undisturbed = tmp_path / "undisturbed"
    assert start(undisturbed).wait() == 0
    expected = contents(undisturbed)
    assert not [name for name in expected if name.startswith(".")]

    kills, folders, moments = 0, 0, random.Random(0)
    while kills < 20:
        folder, folders = tmp_path / f"run_{folders}", folders + 1
        while kills < 20 and not (folder / "manifest.json").exists():
            process = start(folder, *(["--processes"] if kills % 4 == 3 else []))
            while process.poll() is None and not list(folder.glob(".*.partial")):
                time.sleep(0.005)  # until it writes
            time.sleep(moments.uniform(0, 0.25))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        assert start(folder).wait() == 0
        assert contents(folder) == expected
