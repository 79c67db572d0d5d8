"""Commands and snippets of README.md and docs/*.md do what the pages say, on tiny models."""

import contextlib
import importlib.util
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from support.pages import PAGES, ROOT, blocks, commands, mentioned_commands
from support.plugins import page as plugin_page
from support.plugins import restored_tables
from support.tiny_configs import TINY_GENERATOR, TINY_TOKENIZER

import fqgan_jax
from fqgan_jax.cli.main import _parse, main
from fqgan_jax.config import load_config
from fqgan_jax.config.plugins import load_plugins

NAMES = {page.name: page for page in PAGES}
PLUGINS = [f"my_{kind}.py" for kind in ("loss", "quantizer", "head", "teacher", "source", "metric", "task")]
# Commands that .ci/commands and tests of their own run: they need other hardware, a network or many minutes.
ELSEWHERE = ("ablate", "app", "bench", "check", "demo", "plan", "publish", "runs", "weights")
EXTRAS = {"torch": ("torch",), "onnx": ("jax2onnx", "onnxruntime")}  # of formats of `fqgan export`
STAND_INS = {"/data/imagenet": "FOLDER", "/data/records": "records", "/data/features": "features"}
STAND_INS |= {"clip-vit-large-patch14": "hog"}
SMALLER = {"evaluate": ["--count", "6"], "features": ["--image-size", "16"], "prepare": ["--images-per-shard", "20"]}
TWO_STEPS = ("train.steps=2", "train.log_every=1", "train.evaluate_count=8")
SMALL = {
    "tokenizer": (
        *(*TINY_TOKENIZER, *TWO_STEPS, "model.norm_groups=4", "model.adapter_depth=1", "model.feature_depth=1"),
        *("model.feature_heads=2", "model.dtype=float32", "loss.perceptual=0", "adversarial.discriminator=none"),
    ),
    "generator": (*TINY_GENERATOR, *TWO_STEPS[:2], "model.width=64", "model.num_heads=16", "model.dtype=float32"),
}


def small(command: list[str]) -> list[str]:
    """The command with small inputs, models and numbers of images; what it sets itself stays."""
    words = list(command)
    for name, stand_in in STAND_INS.items():
        words = [word.replace(name, stand_in) for word in words]
    if words[0] == "sample" and "--count" in words:
        words += ["--count", "4"]
    words += SMALLER.get(words[0], [])
    if words[0] == "train":
        options = _parse(words)
        load_plugins(options.plugin)
        config = load_config(options.config, options.overrides)
        fields = SMALL.get(config.task, TWO_STEPS[:2])
        if "teachers" in config and "my_teacher.py" not in words:
            fields = (*fields, f"teachers={tuple(name and 'hog' for name in config.teachers)!r}")
        given = {word.partition("=")[0] for word in words}
        words += [f"--config.{field}" for field in fields if f"--config.{field.partition('=')[0]}" not in given]
    return words


def run(command: list[str]) -> None:
    """Runs a command of a page as for the first time."""
    with restored_tables():
        words = small(command)
    options = _parse(words)
    for name in ("out", "workdir", "folder"):
        path = getattr(options, name, None)
        if path and path.is_dir():
            shutil.rmtree(path)
    with restored_tables():
        assert main(words) == 0, words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the commands of docs/training.md have run: photographs, codes, a tokenizer and a generator."""
    folder = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    for label in range(10):
        (folder / "FOLDER" / str(label)).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "FOLDER" / str(label) / f"{number}.png")
    shutil.copy(folder / "FOLDER" / "0" / "0.png", folder / "photo.jpg")
    images = rng.integers(0, 256, (8, 16, 16, 3), np.uint8)
    np.savez(folder / "imagenet_val.npz", arr_0=images)
    for name in PLUGINS:
        (folder / name).write_text(plugin_page(name))
    with contextlib.chdir(folder):
        for command in commands(NAMES["training.md"]):
            if command[0] not in ELSEWHERE:
                run(command)
    shutil.copytree(folder / "runs", folder / "runs" / "demo", ignore=lambda *_: ["demo"])
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_one(name, tmp_path, monkeypatch):
    for plugin in PLUGINS:
        (tmp_path / plugin).write_text(plugin_page(plugin))
    monkeypatch.chdir(tmp_path)
    for command in commands(NAMES[name]):
        options = _parse(command)
        if getattr(options, "config", None):
            with restored_tables():
                load_plugins(options.plugin)
                load_config(options.config, options.overrides)


def test_every_flag_of_a_sentence_is_one(capsys):
    for name, *words in (command for page in PAGES for command in mentioned_commands(page)):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        explained = capsys.readouterr().out
        flags = [word.partition("=")[0] for word in words if word.startswith("--")]
        assert [flag for flag in flags if flag not in explained and not flag.startswith("--config.")] == [], name


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "training.md"])
def test_every_command_runs(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    if name == "weights.md":
        run(["export", "--checkpoint", "runs/tokenizer", "--format", "safetensors", "--out", "files"])
        shutil.copy("files/model.safetensors", "dual_f16.safetensors")
    for command in commands(NAMES[name]):
        libraries = EXTRAS.get(_parse(command).format, ()) if command[0] == "export" else ()
        on_the_hub = any(word.startswith(("hf:", "fqgan-")) for word in command)
        if command[0] not in ELSEWHERE and not on_the_hub and all(map(importlib.util.find_spec, libraries)):
            run(command)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "extending.md" and blocks(NAMES[name], "python")])
def test_the_python_of_a_page_runs(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for kind, files in (("tokenizer", ("dual_f16", "small")), ("generator", ("far",))):
        run(["export", "--checkpoint", f"runs/{kind}", "--format", "safetensors", "--out", "files"])
        for file in files:
            shutil.copy("files/model.safetensors", f"{file}.safetensors")
    names = {"jax": jax, "np": np, "image": np.zeros((16, 16, 3), np.uint8)}
    names |= {kind: getattr(fqgan_jax, f"load_{kind}")(f"runs/{kind}") for kind in ("tokenizer", "generator")}
    exec("\n".join(blocks(NAMES[name], "python")), names)
    assert names["codes"].dtype == np.int32


@pytest.mark.long
@pytest.mark.slow
def test_the_pictures_of_the_readme_are_made_from_a_demo(folder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "generate"))
    import pictures

    monkeypatch.setattr(pictures, "IMAGES", tmp_path)
    monkeypatch.setattr(pictures, "SIDE", 32)
    for name in ("samples", "curves"):
        Image.new("RGB", (1500, 40)).save(folder / "runs" / "demo" / f"{name}.png")
    pictures.main(folder / "runs" / "demo")
    sizes = {path.name: Image.open(path).size for path in tmp_path.iterdir()}
    assert sizes.keys() == {path.name for path in (ROOT / "docs" / "images").glob("*.jpg")}
    assert np.all(np.array(list(sizes.values())) <= pictures.LARGEST)
    assert all(path.stat().st_size < 200_000 for path in (ROOT / "docs" / "images").iterdir())
