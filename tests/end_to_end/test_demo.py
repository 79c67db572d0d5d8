"""The demo on a folder of images, made tiny by replacing its two configs."""

from support.tiny_configs import tiny_generator_config, tiny_tokenizer_config

from fqgan_jax import demo


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
    for row in ("held-out PSNR", "bits per position", "usage", "next-code loss", "seconds"):
        assert row in page
    assert "bits per position  10" in capsys.readouterr().out
    # A second call finds every stage done and gives the same pictures.
    demo.run_demo(str(image_folder), tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in names} == before
