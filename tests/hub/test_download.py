"""Checkpoints on the hub: found, downloaded, checked, kept and refused; from a hub on this machine."""

import os
import subprocess
import sys

import pytest
from support.hub_server import TOKEN, hub_server, use_hub
from support.tiny_models import tiny_tokenizer

from fqgan_jax.api import load_tokenizer
from fqgan_jax.errors import UserError
from fqgan_jax.hub import HubAddress, hub_models, local_checkpoint

REPOSITORY = "someone/tokenizer"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub, and an empty cache in `tmp_path/cache`."""
    with hub_server() as server:
        use_hub(monkeypatch, server.url, tmp_path / "cache")
        yield server


@pytest.fixture
def published(hub, tmp_path):
    """The hub with an export of a tokenizer on it."""
    tiny_tokenizer(2).save(tmp_path / "exported")
    hub.add(REPOSITORY, {path.name: path.read_bytes() for path in (tmp_path / "exported").iterdir()})
    return hub


@pytest.mark.parametrize(
    ("text", "repository", "revision", "file"),
    [
        ("hf:a/b", "a/b", "main", ""),
        ("hf:a.x/b_c-d@v1.0", "a.x/b_c-d", "v1.0", ""),
        ("hf:a/b/model.pt", "a/b", "main", "model.pt"),
        ("hf:a/b@c0ffee/deep/model.pt", "a/b", "c0ffee", "deep/model.pt"),
    ],
)
def test_addresses(text, repository, revision, file):
    address = HubAddress.parse(text)
    assert address == HubAddress(repository=repository, revision=revision, file=file)
    assert str(address) == text


@pytest.mark.parametrize("text", ["hf:", "hf:a", "hf:a/", "hf:/b", "hf:a/b@", "hf:a/b/", "hf:a/b//c", "hf:a b/c"])
def test_what_is_no_address(text):
    with pytest.raises(UserError, match=r"is no address on the hub: write hf:OWNER/REPO"):
        local_checkpoint(text)


def test_an_export_on_the_hub_is_the_model_that_was_exported(published):
    here, there = tiny_tokenizer(2), load_tokenizer(f"hf:{REPOSITORY}")
    assert there.module == here.module
    assert there.fingerprint == here.fingerprint


def test_a_file_is_downloaded_once_and_found_without_the_hub(published, monkeypatch):
    address = f"hf:{REPOSITORY}/params.safetensors"
    path = local_checkpoint(address)
    assert path.read_bytes() == published.repositories[REPOSITORY]["main"]["params.safetensors"]
    assert local_checkpoint(address) == path
    assert [method for method, *_ in published.requests] == ["HEAD", "GET", "HEAD"]
    load_tokenizer(f"hf:{REPOSITORY}")
    published.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert local_checkpoint(address) == path
    load_tokenizer(f"hf:{REPOSITORY}")
    assert not published.requests
    with pytest.raises(UserError, match=r"hf:someone/other/a.pt is not in the hub's cache, and HF_HUB_OFFLINE is set"):
        local_checkpoint("hf:someone/other/a.pt")


def test_a_commit_is_a_revision(published):
    first = published.commit_of(REPOSITORY, "main")
    published.add(REPOSITORY, {"params.safetensors": b"another", "model.json": b"{}"})
    assert local_checkpoint(f"hf:{REPOSITORY}/params.safetensors").read_bytes() == b"another"
    load_tokenizer(f"hf:{REPOSITORY}@{first}")


def test_a_broken_transfer_continues_where_it_stopped(published, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)  # huggingface_hub waits a second
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500)
    published.break_after = 1000
    local_checkpoint(f"hf:{REPOSITORY}/params.safetensors")
    assert [asked for method, _, asked in published.requests if method == "GET"] == [None, "bytes=1000-"]


@pytest.mark.parametrize("name", ["params.safetensors", "model.json"])
@pytest.mark.parametrize("when", ["on the way", "in the cache"])
def test_a_file_other_than_the_hub_publishes_is_refused_and_removed(name, when, published):
    address, content = f"hf:{REPOSITORY}/{name}", published.repositories[REPOSITORY]["main"][name]
    if when == "on the way":
        published.damaged[f"{REPOSITORY}/{name}"] = content[:-1] + b"\1"
    else:
        local_checkpoint(address).write_bytes(content[:-1] + b"\1")
    with pytest.raises(UserError, match=r"is not what the hub publishes.*run the command again"):
        local_checkpoint(address)
    published.damaged.clear()
    assert local_checkpoint(address).read_bytes() == content


def test_without_links_in_the_cache_the_hub_is_asked_for_the_hash(published, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.are_symlinks_supported", lambda *_: False)
    path = local_checkpoint(f"hf:{REPOSITORY}/params.safetensors")
    assert not path.is_symlink()
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="is not what the hub publishes"):
        local_checkpoint(f"hf:{REPOSITORY}/params.safetensors")


def test_what_the_hub_does_not_have_is_a_sentence(published):
    published.add("someone/files", {"a.pt": b"", "deep/b.safetensors": b"", "README.md": b""})
    published.add("someone/words", {"README.md": b""})
    for text, sentence in {
        "hf:someone/none": "no repository someone/none for you",
        "hf:someone/files@old/a.pt": "has no revision old",
        "hf:someone/files/c.pt": "has no file c.pt: name one of hf:someone/files/a.pt, hf:someone/files/deep/b.safeten",
        "hf:someone/files": r"has no file model.json: name one of hf:someone/files/a.pt",
        "hf:someone/words": "has no file model.json, and no checkpoint file",
    }.items():
        with pytest.raises(UserError, match=sentence):
            load_tokenizer(text)


def test_a_private_repository_needs_the_token(published, monkeypatch):
    published.private.add(REPOSITORY)
    with pytest.raises(UserError, match="run `hf auth login` or set HF_TOKEN"):
        local_checkpoint(f"hf:{REPOSITORY}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    load_tokenizer(f"hf:{REPOSITORY}")


def test_a_hub_that_is_gone_is_a_sentence_and_the_cache_goes_on(published, monkeypatch, tmp_path):
    monkeypatch.setattr("time.sleep", lambda _: None)  # huggingface_hub tries again for a while
    load_tokenizer(f"hf:{REPOSITORY}")
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    load_tokenizer(f"hf:{REPOSITORY}")
    with pytest.raises(UserError, match=r"hf:someone/b/c.pt is not in the hub's cache, and the hub cannot be asked"):
        local_checkpoint("hf:someone/b/c.pt")


@pytest.mark.slow
def test_commands_take_addresses_and_obey_the_variables_of_the_hub(published, tmp_path):
    published.private.add(REPOSITORY)
    variables = {"HF_ENDPOINT": published.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN}

    def export(out: str, **more: str) -> subprocess.CompletedProcess:
        flags = ["--checkpoint", f"hf:{REPOSITORY}", "--format", "native", "--out", str(tmp_path / out)]
        command = [sys.executable, "-m", "fqgan_jax.cli.main", "export", *flags]
        environment = os.environ | variables | more
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)

    refused = export("refused", HF_TOKEN="hf_wrong")
    assert refused.returncode == 2
    assert "set HF_TOKEN" in refused.stderr
    first = export("first")
    assert first.returncode == 0, first.stderr
    assert "warning" not in first.stderr.lower()
    number = len(published.requests)
    offline = export("offline", HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert len(published.requests) == number
    for out in ("first", "offline"):
        assert load_tokenizer(tmp_path / out).fingerprint == tiny_tokenizer(2).fingerprint


@pytest.mark.parametrize("name", hub_models)
def test_published_models_have_names(name, hub, monkeypatch, tmp_path):
    address = hub_models[name].address
    hub.add(address.repository, {address.file: name.encode()})
    assert local_checkpoint(name).read_bytes() == name.encode()
    # What lies here under this name is meant first.
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert str(local_checkpoint(name)) == name
