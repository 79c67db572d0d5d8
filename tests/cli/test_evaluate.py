"""`fqgan evaluate` as a user types it."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file
from support import golden_inception, stand_in_features
from support.rows import replace_package, replace_row

from fqgan_jax.cli.main import main
from fqgan_jax.evaluation.features import feature_networks


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """A small network instead of Inception, and an empty cache."""

    def load(file):
        return stand_in_features.network()

    replace_row(monkeypatch, feature_networks, "inception", load)
    replace_package(monkeypatch)
    monkeypatch.setenv("FQGAN_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("stand_in")
def test_images_statistics_and_their_protocol(image_folder, tmp_path, capsys):
    common = ["--size", "16", "--batch-size", "5"]
    blue, red, stored = (
        str(path) for path in (image_folder / "blue", image_folder / "red", tmp_path / "new" / "s.npz")
    )
    assert main(["evaluate", "--data", red, *common, "--save-statistics", stored]) == 0
    for name, reference in (("images", red), ("statistics", stored)):
        out = str(tmp_path / f"{name}.json")
        assert main(["evaluate", "--data", blue, "--reference", reference, *common, "--out", out]) == 0
    images, statistics = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("images", "statistics"))
    np.testing.assert_allclose(images["results"]["fid"], statistics["results"]["fid"], rtol=1e-9)
    assert images["protocol"]["reference"] == statistics["protocol"]["reference"]["statistics"]["data"]
    assert images["protocol"]["reference"]["count"] == images["protocol"]["data"]["count"] == 12
    assert images["protocol"]["inception"]["sha256"] == stand_in_features.SHA256
    assert {"rounding", "versions", "devices"} <= images["protocol"].keys()
    assert statistics["missing"].keys() == {"precision", "recall", "fd_lite0"}
    printed = capsys.readouterr().out
    assert re.search(rf"fid  {images['results']['fid']:.6g} +lower is better\n", printed)


@pytest.mark.slow
@pytest.mark.usefixtures("stand_in")
def test_models(trained_tokenizer, trained_generator, image_folder, tmp_path):
    out = tmp_path / "out.json"
    command = ["evaluate", "--checkpoint", str(trained_tokenizer), "--data", str(image_folder), "--out", str(out)]
    assert main([*command, "--count", "9", "--report", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 7
    assert page.count("src=") == 7
    assert f"{json.loads(out.read_text())['results']['psnr']:.4g} dB" in page
    assert page.index("<table>") < page.index("<img") < page.index("How it was measured") < page.index("Missing")
    content = json.loads(out.read_text())
    assert {"rfid", "inception_score", "psnr", "ssim", "usage/0", "perplexity/1"} <= content["results"].keys()
    assert "fqgan weights fetch" in content["missing"]["lpips"]
    assert content["protocol"]["data"]["count"] == 9
    command = ["evaluate", "--checkpoint", str(trained_generator), "--tokenizer", str(trained_tokenizer)]
    settings = ["--count", "6", "--reference", str(image_folder), "--guidance", "1.5,2", "--top-k", "4"]
    assert main([*command, *settings, "--out", str(out), "--report", str(tmp_path / "samples")]) == 0
    assert len(list((tmp_path / "samples").glob("samples_guidance_*.png"))) == 3
    content = json.loads(out.read_text())
    assert {"gfid", "sfid", "inception_score", "precision", "recall"} <= content["results"].keys()
    sampling = {"guidance": [1.5, 2], "temperature": [1], "top_k": [4], "top_p": [1], "min_p": [0]}
    assert content["protocol"]["sampling"] == sampling | {"guidance_schedule": ["constant"]}


def test_without_inception_its_columns_say_how_to_get_it(image_folder, tmp_path, monkeypatch, capsys):
    replace_package(monkeypatch)
    monkeypatch.setenv("FQGAN_CACHE", str(tmp_path / "cache"))
    command = ["evaluate", "--data", str(image_folder / "red"), "--size", "16"]
    assert main([*command, "--out", str(tmp_path / "out.json")]) == 0
    assert "fqgan weights fetch inception-fid" in json.loads((tmp_path / "out.json").read_text())["missing"]["fid"]
    assert "Missing fid, sfid, precision, recall, inception_score: The weights" in capsys.readouterr().out
    assert main([*command, "--save-statistics", str(tmp_path / "s.npz")]) == 2


@pytest.mark.slow
def test_inception_itself_on_images_and_their_copy(image_folder, tmp_path):
    save_file(golden_inception.state(), tmp_path / "inception.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "a.npz", pixels)
    np.savez(tmp_path / "b.npz", pixels[::-1])
    command = ["evaluate", "--data", str(tmp_path / "a.npz"), "--reference", str(tmp_path / "b.npz")]
    command += ["--inception", str(tmp_path / "inception.safetensors"), "--out", str(tmp_path / "out.json")]
    assert main(command) == 0
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    assert results["fid"] < 1e-3
    assert results["sfid"] < 1e-3
    assert results["precision"] == results["recall"] == 1
    assert 1 <= results["inception_score"] < 5


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "There is nothing to measure"),
        ("--data {tmp}/none", "There is no folder"),
        ("--data {tmp}/none.npz", "There is no file"),
        ("--checkpoint {tmp}/none --data {tmp}", "There is no checkpoint"),
        ("--checkpoint {tmp} --tokenizer {tmp} --data {tmp}", "need no --data"),
        ("--checkpoint {tmp} --tokenizer {tmp}", "give --count"),
        ("--data photos --runs {tmp}", "give --report too"),
        ("--data photos --report {tmp}/report --runs {tmp}", "not a work folder"),
        ("--tokenizer {tmp}", "give the generator with --checkpoint"),
        ("--data photos --size 16 --inception {tmp}/none.safetensors", "There is no file"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(command, message, tmp_path, capsys):
    assert main(["evaluate", *command.format(tmp=tmp_path).split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
