"""The demo on a folder of images, made tiny by replacing its two configs."""

import pytest
from support.tiny_configs import tiny_generator_config, tiny_tokenizer_config

from fqgan_jax import demo
from fqgan_jax.cli.main import main
from fqgan_jax.config import load_config


@pytest.mark.slow
def test_demo_writes_everything_and_continues(image_folder, tmp_path, monkeypatch, capsys):
    def tiny(file, overrides):
        fields = [override.removeprefix("--config.") for override in overrides]
        return tiny_tokenizer_config(*fields) if "tokenizer" in file else tiny_generator_config(*fields)

    monkeypatch.setattr(demo, "load_config", tiny)
    report = demo.run_demo(str(image_folder), tmp_path)
    names = ("reconstructions.png", "samples.png", "curves.png")
    before = {name: (tmp_path / name).read_bytes() for name in names}
    page = report.read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page
    for row in ("held-out PSNR", "bits per position", "usage", "next-code loss", " dB", " nats", " s<"):
        assert row in page
    assert "bits per position  10" in capsys.readouterr().out
    # A second call finds every stage done and gives the same pictures.
    demo.run_demo(str(image_folder), tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in names} == before


def test_the_quick_demo_trains_for_a_tenth_of_the_steps():
    config = load_config("configs/demo_tokenizer.py")
    quick = demo._shortened(config)
    assert (quick.train.steps, quick.train.evaluate_every, quick.optimizer.warmup_steps) == (
        config.train.steps // 10,
        config.train.evaluate_every // 10,
        config.optimizer.warmup_steps // 10,
    )


def test_the_command_passes_quick_and_keeps_its_own_folder(monkeypatch, capsys):
    calls = []

    def run_demo(data, workdir, *, teacher, quick):
        calls.append((data, str(workdir), teacher, quick))
        return workdir / "report.html"

    monkeypatch.setattr(demo, "run_demo", run_demo)
    assert main(["demo"]) == main(["demo", "--quick", "--teacher", "none"]) == 0
    assert calls == [("photos", "runs/demo", "hog", False), ("photos", "runs/demo_quick", "none", True)]
