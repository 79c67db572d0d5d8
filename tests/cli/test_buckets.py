"""Commands whose folders and files are in object storage, one after the other as a user types them."""

import json

import pytest
from support.object_storage import upload
from support.tiny_configs import PLAIN, TINY_TOKENIZER

from fqgan_jax.api import load_tokenizer
from fqgan_jax.cli.main import main
from fqgan_jax.storage import as_path


def run(command: str, capsys) -> str:
    assert main(command.split()) == 0, capsys.readouterr().err
    return capsys.readouterr().out


@pytest.mark.long
@pytest.mark.slow
def test_commands_read_and_write_buckets(bucket_folder, image_folder, trained_tokenizer, trained_generator, capsys):
    at = bucket_folder
    upload(image_folder, f"{at}/images")
    fields = " ".join(f"--config.{field}" for field in (*TINY_TOKENIZER, *PLAIN, "train.evaluate_count=4"))
    train = f"train --config configs/demo_tokenizer.py {fields} --workdir {at}/tokenizer --config.train.keep_best=psnr"
    run(f"{train} --config.data.source={at}/images", capsys)
    run(f"{train} --config.data.source={at}/images", capsys)  # there is nothing left to do
    assert load_tokenizer(f"{at}/tokenizer@best").fingerprint == load_tokenizer(f"{at}/tokenizer@4").fingerprint
    codes = run(f"tokenize --checkpoint {at}/tokenizer --data {at}/images --crops center --out {at}/codes", capsys)
    assert f"Codes -> {at}/codes" in codes
    assert json.loads((as_path(at) / "codes" / "codes.json").read_text())["count"] == 22
    evaluate = f"evaluate --checkpoint {at}/tokenizer --data {at}/images --out {at}/numbers.json --report {at}/report"
    run(f"{evaluate} --runs {at}/tokenizer", capsys)
    assert "psnr" in (as_path(at) / "numbers.json").read_text()
    assert "base64" in (as_path(at) / "report" / "report.html").read_text()
    run(f"export --checkpoint {at}/tokenizer --format native --out {at}/export", capsys)
    assert load_tokenizer(f"{at}/export").fingerprint == load_tokenizer(f"{at}/tokenizer").fingerprint
    assert main(f"export --checkpoint {at}/tokenizer --format native --out {at}/export".split()) == 2
    assert f"{at}/export exists already" in capsys.readouterr().err
    picture = next((as_path(at) / "images").glob("*/*.png"))
    run(f"reconstruct --checkpoint {at}/export --out {at}/pictures {picture}", capsys)
    assert [path.suffix for path in (as_path(at) / "pictures").iterdir()] == [".png"]


@pytest.mark.long
@pytest.mark.slow
def test_generators_in_buckets(s3, trained_tokenizer, trained_generator, capsys):
    tokenizer, generator = upload(trained_tokenizer, f"{s3}/tokenizer"), upload(trained_generator, f"{s3}/generator")
    models = f"--checkpoint {generator} --tokenizer {tokenizer}"
    run(f"sample {models} --labels 0,1 --per-class 2 --out {s3}/samples.npz", capsys)
    run(f"sample {models} --labels 0,1 --per-class 1 --out {s3}/samples", capsys)
    assert sorted(path.name for path in as_path(s3).iterdir()) == [
        *("generator", "samples", "samples.npz", "samples.png", "tokenizer"),
    ]
    assert len(list((as_path(s3) / "samples").glob("*.png"))) == 2
    run(f"evaluate {models} --count 4 --reference {s3}/samples.npz --out {s3}/sweep.json --sweep top_p=0.5,1", capsys)
    assert len(json.loads((as_path(s3) / "sweep.json").read_text())["points"]) == 2


def test_no_bucket_is_a_sentence(s3, trained_tokenizer, capsys):
    for command in (
        "train --config configs/demo_tokenizer.py --workdir s3://missing/run",
        f"export --checkpoint {trained_tokenizer} --format native --out s3://missing/export",
    ):
        assert main(command.split()) == 2
        assert "There is no bucket s3://missing: make it first, or choose another path." in capsys.readouterr().err
    assert main(f"reconstruct --checkpoint {s3}/none --out x y.png".split()) == 2
    assert f"There is no checkpoint {s3}/none" in capsys.readouterr().err
