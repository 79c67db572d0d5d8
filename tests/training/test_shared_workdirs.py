"""Work folders that others use, that cannot be used, or whose data changed; logs and files that were damaged."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from support.tiny_configs import PLAIN, tiny_generator_config, tiny_tokenizer_config

from fqgan_jax.cli.main import main
from fqgan_jax.errors import UserError
from fqgan_jax.training import train
from fqgan_jax.training.logging import RunLog, read_log
from fqgan_jax.training.workdir import exclusive


@pytest.fixture
def images(image_folder, tmp_path):
    return shutil.copytree(image_folder, tmp_path / "images")


def config_of(images, *overrides):
    return tiny_tokenizer_config(*PLAIN, f"data.source={images}", "train.evaluate_count=4", *overrides)


def test_a_second_training_is_refused_and_the_first_goes_on(tmp_path):
    workdir = tmp_path / "run"
    with exclusive(workdir):
        before = sorted(workdir.rglob("*"))
        with pytest.raises(UserError, match=r"Another training runs in .*run: wait for it"):
            train(tiny_tokenizer_config(*PLAIN), workdir)
        assert sorted(workdir.rglob("*")) == before
    assert not workdir.exists()  # nothing was written


def test_the_lock_of_a_killed_training_is_not_in_the_way(tmp_path, images):
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom fqgan_jax.training.workdir import exclusive\n"
        "with exclusive(Path(sys.argv[1])):\n  print('held', flush=True)\n  time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="Another training"), exclusive(tmp_path / "run"):
        pass
    process.kill()
    process.wait()
    with exclusive(tmp_path / "run"):
        pass


def test_work_folders_that_are_none(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for workdir in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="choose another"):
            train(tiny_tokenizer_config(*PLAIN), workdir)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_refused_start_claims_no_folder(tmp_path):
    with pytest.raises(UserError, match="There is no folder"):
        train(tiny_tokenizer_config(*PLAIN, f"data.source={tmp_path / 'none'}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def stopped(image_folder, tmp_path_factory):
    """A run of two of four steps on images of its own, as (images, work folder)."""
    folder = tmp_path_factory.mktemp("stopped")
    shutil.copytree(image_folder, folder / "images")
    train(config_of(folder / "images"), folder / "run", stop_after=2)
    return folder


@pytest.fixture
def copied(stopped, tmp_path):
    """The same, to change; its images keep their names in the config, so the run's folder moves only."""
    kept = {path: (path.read_bytes(), path.stat()) for path in (stopped / "images").rglob("*.png")}
    yield shutil.copytree(stopped / "run", tmp_path / "run")
    for path in (stopped / "images").rglob("*.png"):
        path.unlink()
    for path, (content, stat) in kept.items():
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    for folder in (stopped / "images").iterdir():
        if not any(folder.iterdir()):
            folder.rmdir()


def replace_an_image(images):
    shutil.copy(images / "red" / "01.png", images / "red" / "00.png")


def remove_an_image(images):
    (images / "red" / "11.png").unlink()


def add_a_class(images):
    shutil.copytree(images / "red", images / "white")


@pytest.mark.parametrize("damage", [replace_an_image, remove_an_image, add_a_class])
def test_data_that_changed_is_refused_unless_allowed(damage, stopped, copied):
    damage(stopped / "images")
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"data has changed|another model|other classes"):
        train(config_of(stopped / "images"), copied)
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before
    if damage is not add_a_class:
        state = train(config_of(stopped / "images", "data.allow_changes=True"), copied, stop_after=3)
        assert int(state.step) == 3
        train(config_of(stopped / "images"), copied, stop_after=3)  # the record is the new data's


def test_content_is_compared_if_asked_for(image_folder, tmp_path):
    images = shutil.copytree(image_folder, tmp_path / "images")
    verify = "data.verify=content"
    train(config_of(images, verify, "train.steps=1"), tmp_path / "run")
    for path in images.rglob("*.png"):
        path.touch()  # another time, the same content
    train(config_of(images, verify, "train.steps=1"), tmp_path / "run")
    path = images / "red" / "00.png"
    times = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # the same size and time
    with pytest.raises(UserError, match="what its files hold"):
        train(config_of(images, verify, "train.steps=1"), tmp_path / "run")


def test_codes_written_again_by_another_tokenizer_are_refused(code_cache, trained_tokenizer, tmp_path):
    """Also if only the codes differ, not the tokenizer's name."""
    codes = shutil.copytree(code_cache, tmp_path / "codes")
    config = tiny_generator_config(f"data.codes={codes}", "train.steps=2")
    train(config, tmp_path / "run", stop_after=1)
    manifest = json.loads((codes / "codes.json").read_text())
    manifest["shards"][0]["sha256"] = "0" * 64
    (codes / "codes.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="data has changed"):
        train(config, tmp_path / "run")


def test_damaged_lines_of_a_log_are_left_out(tmp_path):
    lines = [
        b'{"step": 1, "loss": 1.0}',
        b"",
        b"\0" * 40,
        b'{"step": 2, "lo',
        b"[3]",
        b'"x"',
        b"\xff\xfe",
        b'{"loss": 1}',
    ]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([*lines, b'{"step": 3, "loss": 0.5}', b'{"step": 4']))
    assert [line["step"] for line in read_log(tmp_path)] == [1, 3]
    log = RunLog(tmp_path, 3)
    log.scalars(4, {"loss": 0.25})
    log.close()
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 3, 4]


@pytest.mark.parametrize("content", ["", "{", "\0\0", "[]", "3", '{"task": 7}', '{"task": "tokenizer", "model": 3}'])
def test_damaged_configs_of_a_run(content, stopped, copied):
    (copied / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        train(config_of(stopped / "images"), copied)


@pytest.mark.parametrize("content", ["", "{", "\0\0", "[]", "3", '"x"'])
def test_damaged_checksums_set_a_checkpoint_aside(content, stopped, copied):
    (copied / "checkpoints" / "2" / "checksums.json").write_text(content)
    with pytest.raises(UserError, match=r"Every checkpoint in .* is damaged"):
        train(config_of(stopped / "images"), copied)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"kind": "tokenizer"}', '{"kind": 1, "fields": {}}'])
def test_damaged_descriptions(content, stopped, copied):
    (copied / "model.json").write_text(content)
    assert main(["reconstruct", "--checkpoint", str(copied), "--out", str(copied / "out"), "x.png"]) == 2


def test_parameters_that_are_not_finite_are_not_saved(stopped, copied):
    """An enormous decay ruins the parameters in one step, though loss and gradients are finite."""
    config = config_of(stopped / "images", "optimizer.weight_decay=1e38", "optimizer.learning_rate=1e3")
    workdir = copied.parent / "ruined"
    with pytest.raises(UserError, match=r"parameters of step \d are not finite|not finite"):
        train(config, workdir)
    assert not (workdir / "checkpoints" / "2").exists()


def test_ctrl_c_early_in_a_training(tmp_path):
    command = [sys.executable, "-m", "fqgan_jax.cli.main", "train", "--config", "configs/demo_tokenizer.py"]
    process = subprocess.Popen([*command, "--workdir", tmp_path / "run"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / ".lock").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(2)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
