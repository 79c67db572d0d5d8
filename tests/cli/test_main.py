"""The edge of the command line: outputs that cannot be written, numbers out of range, Ctrl-C, pipes, odd names."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fqgan_jax.cli import sample
from fqgan_jax.cli.main import main

COMMAND = (sys.executable, "-m", "fqgan_jax.cli.main")


@pytest.mark.parametrize(
    "command",
    [
        ("sample", "--checkpoint", "G", "--tokenizer", "T", "--seed", "-1"),
        ("sample", "--checkpoint", "G", "--tokenizer", "T", "--seed", str(2**70)),
        ("sample", "--checkpoint", "G", "--tokenizer", "T", "--seed", "1.5"),
        ("sample", "--checkpoint", "G", "--tokenizer", "T", "--count", str(10**12)),
        ("sample", "--checkpoint", "G", "--tokenizer", "T", "--count", "0"),
        ("sample", "--checkpoint", "G", "--tokenizer", "T", "--batch-size", str(2**40)),
        ("tokenize", "--checkpoint", "T", "--data", "photos", "--seed", "-1"),
        ("data", "photos", "--seed", "-1"),
    ],
    ids=" ".join,
)
def test_numbers_out_of_range(command, tmp_path, capsys):
    with pytest.raises(SystemExit) as raised:
        main([*command, "--out", str(tmp_path / "x.png")])
    assert raised.value.code == 2
    assert "no whole number from" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", [("--top-k", str(2**40)), ("--guidance", "inf"), ("--labels", "0,99"), ("--labels", str(2**32))], ids=str
)
def test_sampling_options_out_of_range(flags, trained_generator, trained_tokenizer, tmp_path, capsys):
    models = ["--checkpoint", str(trained_generator), "--tokenizer", str(trained_tokenizer)]
    assert main(["sample", *models, "--out", str(tmp_path / "x"), *flags]) == 2
    assert flags[0].removeprefix("--").replace("-", "_")[:5] in capsys.readouterr().err.lower()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "--checkpoint", "none", "--out", "FILE/x.json"),
        ("evaluate", "--checkpoint", "none", "--save-statistics", "FILE/x.npz"),
        ("evaluate", "--checkpoint", "none", "--out", "FOLDER.json"),
        ("sample", "--checkpoint", "none", "--tokenizer", "none", "--out", "FILE/x"),
        ("plan", "--config", "none", "--topology", "local", "--json", "FILE/x.json"),
        ("prepare", "photos", "FILE/x"),
        ("train", "--config", "configs/demo_tokenizer.py", "--workdir", "FILE/x"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_written_is_found_before_the_work(command, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.json").mkdir()
    names = {"FILE": str(tmp_path / "file"), "FOLDER.json": str(tmp_path / "folder.json")}
    command = [names.get(part, part.replace("FILE", names["FILE"])) for part in command]
    assert main(command) == 2
    assert "choose another" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sample, "run", interrupt)
    assert main(["sample", "--checkpoint", "a", "--tokenizer", "b", "--out", "c"]) == 130
    assert capsys.readouterr().err == "fqgan sample: stopped.\n"


def test_ctrl_c_while_a_command_runs():
    script = (
        "import sys, time\nfrom fqgan_jax.cli import data\nfrom fqgan_jax.cli.main import main\n"
        "def run(_):\n  print('reading', flush=True)\n  time.sleep(60)\n"
        "data.run = run\nsys.exit(main(['data', 'photos']))"
    )
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "reading\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "fqgan data: stopped.\n"


def test_a_closed_pipe_ends_quietly(image_folder):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, "data", str(image_folder)], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_names_that_are_no_utf8_are_printed(tmp_path):
    folder = tmp_path / "data"
    (folder / "a").mkdir(parents=True)
    for name in ("good", "better"):
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(folder / "a" / f"{name}.png")
    with open(os.fsencode(folder / "a") + b"/bad\xff.png", "wb") as file:
        file.write(b"damaged")
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([*COMMAND, "data", str(folder)], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert b"bad\\udcff.png" in done.stdout + done.stderr


def test_ctrl_c_in_a_callback_is_not_lost():
    script = """
import gc, os, signal, sys, time
from fqgan_jax.cli.main import _set_up_logging
_set_up_logging()
def callback(phase, info):
    gc.callbacks.remove(callback)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)
gc.callbacks.append(callback)
try:
    gc.collect()
    time.sleep(20)
except KeyboardInterrupt:
    sys.exit(130)"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert not done.stderr


def test_without_a_home_the_cache_is_asked_for(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "FQGAN_CACHE")}
    script = (
        "import os, pwd, sys\npwd.getpwuid = lambda _: (_ for _ in ()).throw(KeyError())\n"
        "from fqgan_jax.cli.main import main\nsys.exit(main(['weights', 'list']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 2, done.stderr
    assert "set FQGAN_CACHE" in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 3 TiB"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes."),
        RuntimeError("INTERNAL: Error dispatching computation: Out of memory allocating 25778604200 bytes."),
    ],
    ids=str,
)
def test_too_little_memory_is_a_sentence(error, monkeypatch, capsys):
    def fail(_):
        raise error

    monkeypatch.setattr(sample, "run", fail)
    assert main(["sample", "--checkpoint", "a", "--tokenizer", "b", "--out", "c"]) == 2
    assert f"not enough memory ({error})" in capsys.readouterr().err


def test_two_images_of_one_name_are_two_pictures(trained_tokenizer, image_folder, tmp_path):
    names = [str(image_folder / "red" / "00.png"), str(image_folder / "blue" / "00.png")]
    assert main(["reconstruct", "--checkpoint", str(trained_tokenizer), "--out", str(tmp_path), *names]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"00_reconstruction.png", "00_2_reconstruction.png"}


def test_older_samples_are_not_left_among_new_ones(trained_generator, trained_tokenizer, tmp_path, capsys):
    models = ["--checkpoint", str(trained_generator), "--tokenizer", str(trained_tokenizer)]
    command = ["sample", *models, "--out", str(tmp_path / "x"), "--labels", "0", "--per-class"]
    assert main([*command, "2"]) == 0
    assert main([*command, "2"]) == 0  # the same pictures again
    assert main([*command, "1"]) == 2
    assert "holds other pictures" in capsys.readouterr().err
    assert len(list((tmp_path / "x").iterdir())) == 2
