"""`fqgan publish`: what arrives on a hub on this machine loads there, and its card says what is known."""

import json

import pytest
from huggingface_hub import ModelCard
from support.hub_server import TOKEN, hub_server, use_hub
from support.object_storage import upload
from support.tiny_models import tiny_generator, tiny_tokenizer

import fqgan_jax
from fqgan_jax.cli.main import main
from fqgan_jax.storage import as_path

ADDRESS = "hf:someone/new"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub on which the token may write."""
    with hub_server() as server:
        use_hub(monkeypatch, server.url, tmp_path / "cache", token=TOKEN)
        yield server


@pytest.fixture
def saved(tmp_path):
    """An export of a tokenizer."""
    tiny_tokenizer(2).save(tmp_path / "saved")
    return tmp_path / "saved"


def evaluation(path, **protocol):
    """An evaluation as `fqgan evaluate --out` writes it."""
    path.write_text(json.dumps({"results": {"psnr": 21.5}, "missing": {}, "protocol": {"count": 8} | protocol}))
    return str(path)


def test_what_is_published_loads_from_its_address(hub, saved, capsys):
    assert main(["publish", "--checkpoint", str(saved), ADDRESS, "--private"]) == 0
    assert f"{hub.url}/someone/new/commit/" in capsys.readouterr().out
    ((_, files, is_private),) = hub.commits
    assert is_private
    assert {"README.md", "model.json", "params.safetensors"} == set(files)
    assert fqgan_jax.load_tokenizer(ADDRESS).fingerprint == tiny_tokenizer(2).fingerprint
    # Once more: the repository is there already, and what it holds can be published from it.
    assert main(["publish", "--checkpoint", ADDRESS, "hf:someone/copy@next"]) == 0
    assert fqgan_jax.load_tokenizer("hf:someone/copy@next").fingerprint == tiny_tokenizer(2).fingerprint
    assert main(["publish", "--checkpoint", str(saved), ADDRESS, "--license", "apache-2.0"]) == 0


@pytest.mark.parametrize("model", [tiny_tokenizer(2), tiny_generator(2)], ids=["tokenizer", "generator"])
def test_the_code_of_the_card_loads_the_model_in_five_lines(model, hub, tmp_path):
    model.save(tmp_path / "model")
    assert main(["publish", "--checkpoint", str(tmp_path / "model"), ADDRESS, "--license", "cc-by-4.0"]) == 0
    card = ModelCard(hub.repositories["someone/new"]["main"]["README.md"].decode())
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "fqgan_jax"
    code = card.text.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 5
    names = {}
    exec(code, names)
    assert names["codes"].shape == (1, 4, 4, 2)


def test_the_card_has_metrics_with_their_protocol_and_of_this_model_alone(hub, saved, tmp_path, capsys):
    own = evaluation(tmp_path / "own.json", tokenizer=tiny_tokenizer(2).fingerprint)
    command = ["publish", "--checkpoint", str(saved), ADDRESS, "--evaluation"]
    assert main([*command, own]) == 0
    text = hub.repositories["someone/new"]["main"]["README.md"].decode()
    assert "| psnr | 21.5 | dB, higher is better |" in text
    assert '"count": 8' in text
    for other in (tiny_tokenizer(3).fingerprint, None):
        assert main([*command, evaluation(tmp_path / "other.json", tokenizer=other)]) == 2
        assert "is not an evaluation of this tokenizer" in capsys.readouterr().err
    (tmp_path / "other.json").write_text("{}")
    assert main([*command, str(tmp_path / "other.json")]) == 2
    assert "it lacks protocol, results" in capsys.readouterr().err
    assert len(hub.commits) == 1


def test_a_run_brings_its_config_last_evaluation_and_pictures(hub, trained_tokenizer, tmp_path):
    out = tmp_path / "card"
    assert main(["publish", "--checkpoint", f"{trained_tokenizer}@4", ADDRESS, "--out", str(out)]) == 0
    assert not hub.requests
    text, config = (out / "README.md").read_text(), json.loads((out / "config.json").read_text())
    lines = [json.loads(line) for line in (trained_tokenizer / "metrics.jsonl").read_text().splitlines()]
    (psnr,) = (line["validation/psnr"] for line in lines if "validation/psnr" in line)
    assert f"| psnr | {psnr:.6g} |" in text
    assert config["data"]["source"] == "photos"
    assert "- images: `photos`" in text
    shown = {path.name for path in (out / "pictures").iterdir()}
    assert shown == {path.name for path in (trained_tokenizer / "pictures").glob("*.png")} != set()
    assert all(f"](pictures/{name})" in text for name in shown)
    assert fqgan_jax.load_tokenizer(out).fingerprint == fqgan_jax.load_tokenizer(trained_tokenizer).fingerprint


def test_a_run_in_a_bucket_brings_the_same(hub, trained_tokenizer, s3, tmp_path):
    checkpoint = upload(trained_tokenizer, f"{s3}/run")
    for where, out in ((str(trained_tokenizer), str(tmp_path / "card")), (checkpoint, f"{s3}/card")):
        assert main(["publish", "--checkpoint", where, ADDRESS, "--out", out]) == 0
    files = {path.relative_to(as_path(s3) / "card").as_posix() for path in (as_path(s3) / "card").files()}
    assert files == {path.relative_to(tmp_path / "card").as_posix() for path in (tmp_path / "card").rglob("*.*")}
    assert (as_path(s3) / "card" / "README.md").read_text() == (tmp_path / "card" / "README.md").read_text()
    assert fqgan_jax.load_tokenizer(f"{s3}/card").fingerprint == fqgan_jax.load_tokenizer(trained_tokenizer).fingerprint


def test_what_cannot_be_published_is_a_sentence(hub, saved, monkeypatch, capsys):
    for to, sentence in {
        "someone/new": "is no address on the hub",
        "hf:someone/new/model.pt": "names a file: give the repository alone",
    }.items():
        assert main(["publish", "--checkpoint", str(saved), to]) == 2
        assert sentence in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main(["publish", "--checkpoint", str(saved), ADDRESS]) == 2
    assert "HF_TOKEN" in capsys.readouterr().err
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["publish", "--checkpoint", str(saved), ADDRESS]) == 2
    assert "HF_HUB_OFFLINE" in capsys.readouterr().err
    assert not hub.commits
