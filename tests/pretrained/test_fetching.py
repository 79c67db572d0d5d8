"""Weights come into the cache whole and checked, or not at all; from a server on this machine."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save
from support.hub_server import hub_server, use_hub
from support.published_files import file_server
from support.rows import replace_row

from fqgan_jax.errors import UserError
from fqgan_jax.pretrained import tensors
from fqgan_jax.pretrained.fetching import fetch
from fqgan_jax.pretrained.tensors import read_tensors
from fqgan_jax.pretrained.weights import find_weights, networks

KEPT = {"features.0.weight": np.arange(5000, dtype=np.float32).reshape(50, 100), "features.0.bias": np.ones(3, "f4")}
CONTENT = save(KEPT | {"classifier.0.weight": np.zeros((7, 7), np.float32)})
DINO = networks["dinov2-small"].repository
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FQGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def server(cache, monkeypatch):
    """Publishes vgg16, of which the first digits of the SHA-256 are known."""
    with file_server() as server:
        server.files["/vgg.safetensors"] = CONTENT
        row = dataclasses.replace(networks["vgg16"], url=f"{server.url}/vgg.safetensors", sha256=DIGEST[:8])
        replace_row(monkeypatch, networks, "vgg16", row)
        yield server


@pytest.fixture
def hub(cache, monkeypatch, tmp_path):
    """Publishes dinov2-small on a hub."""
    with hub_server() as server:
        use_hub(monkeypatch, server.url, tmp_path / "hub_cache")
        server.add(DINO, {"config.json": b"{}", "model.safetensors": CONTENT, "pytorch_model.bin": b"unused"})
        yield server


def assert_nothing_is_left(cache):
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_fetch_checks_converts_and_records(server, cache):
    folder = fetch("vgg16")
    assert folder == cache / "vgg16" == find_weights("vgg16")
    found = load_file(folder / "model.safetensors")
    assert found.keys() == KEPT.keys()
    for name, tensor in KEPT.items():
        np.testing.assert_array_equal(found[name], tensor)
    record = json.loads((folder / "source.json").read_text())
    assert record["published"] == {"url": networks["vgg16"].url, "sha256": DIGEST}
    assert (
        record["files"]["model.safetensors"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    )
    assert [path.name for path in cache.iterdir() if any(path.iterdir())] == ["vgg16"]
    # What is there is not fetched again.
    fetch("vgg16")
    assert len(server.requests) == 1


def test_a_broken_transfer_continues_where_it_stopped(server, cache):
    server.break_after = 7000
    with pytest.raises(UserError, match=f"it broke off after 7000 of {len(CONTENT)} bytes") as raised:
        fetch("vgg16")
    assert "run the command again to continue" in str(raised.value)
    assert not (cache / "vgg16").exists()
    folder = fetch("vgg16")
    assert [asked for _, asked in server.requests] == [None, "bytes=7000-"]
    np.testing.assert_array_equal(
        load_file(folder / "model.safetensors")["features.0.weight"], KEPT["features.0.weight"]
    )


def test_a_server_without_ranges_sends_everything_again(server):
    server.break_after, server.ranges = 7000, False
    with pytest.raises(UserError, match="broke off"):
        fetch("vgg16")
    find_weights(fetch("vgg16").name)


def test_a_part_that_is_the_whole_file_is_taken(server, cache):
    (cache / "downloads" / "vgg16").mkdir(parents=True)
    (cache / "downloads" / "vgg16" / "vgg.safetensors.partial").write_bytes(CONTENT)
    fetch("vgg16")
    assert server.requests == [("/vgg.safetensors", f"bytes={len(CONTENT)}-")]


@pytest.mark.parametrize("given", [None, "0" * 64])
def test_a_wrong_hash_is_refused_and_nothing_is_left(given, server, cache):
    if given is None:
        server.files["/vgg.safetensors"] = CONTENT[:-1] + b"\1"
    with pytest.raises(UserError, match=f"is not the published file of vgg16.*{given or DIGEST[:8] + '…'}"):
        fetch("vgg16", sha256=given)
    assert_nothing_is_left(cache)


def test_without_a_connection_the_sentence_tells_what_to_do(server, cache):
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError) as raised:
        fetch("vgg16")
    message = str(raised.value)
    for part in (networks["vgg16"].url, str(cache), "fqgan weights fetch vgg16 --from vgg.safetensors"):
        assert part in message
    assert_nothing_is_left(cache)


def test_a_page_that_is_gone(server, cache):
    server.files.clear()
    with pytest.raises(UserError, match="Not Found"):
        fetch("vgg16")
    assert_nothing_is_left(cache)


def test_missing_weights_are_a_sentence(cache):
    with pytest.raises(
        UserError, match=r"run `fqgan weights fetch dinov2-small`.*--from model.safetensors --sha256 HEX"
    ):
        find_weights("dinov2-small")
    with pytest.raises(UserError, match="did you mean 'dinov2-small'"):
        find_weights("dinov2-smal")


def test_a_file_at_hand_must_be_the_published_one(server, cache, tmp_path):
    file = tmp_path / "other name.safetensors"
    file.write_bytes(CONTENT)
    find_weights(fetch("vgg16", file).name)
    assert not server.requests
    file.write_bytes(save(KEPT))
    with pytest.raises(UserError, match="is not the published file"):
        fetch("vgg16", file)
    # A hash of one's own does not overrule the published one.
    with pytest.raises(UserError, match="is not the published file"):
        fetch("vgg16", file, hashlib.sha256(save(KEPT)).hexdigest())
    assert len(load_file(find_weights("vgg16") / "model.safetensors")) == len(KEPT)


def test_the_hub_tells_commit_and_hash(hub):
    folder = fetch("dinov2-small")
    record = json.loads((folder / "source.json").read_text())
    url = f"{hub.url}/{DINO}/resolve/{hub.commit_of(DINO, 'main')}/model.safetensors"
    assert record["published"] == {"url": url, "sha256": DIGEST}
    assert set(record["files"]) == {"config.json", "model.safetensors"}


def test_a_hub_file_other_than_the_hub_says_is_refused(hub, cache):
    hub.damaged[f"{DINO}/model.safetensors"] = CONTENT[:-1] + b"\1"
    with pytest.raises(UserError, match=f"not {DIGEST}"):
        fetch("dinov2-small")
    assert_nothing_is_left(cache)
    assert_nothing_is_left(cache.parents[1] / "hub_cache" / "blobs")
    hub.damaged.clear()
    find_weights(fetch("dinov2-small").name)


def test_a_file_that_the_hub_s_cache_has_is_not_downloaded_again(hub, monkeypatch, tmp_path):
    fetch("dinov2-small")
    hub.requests.clear()
    monkeypatch.setenv("FQGAN_CACHE", str(tmp_path / "another_cache"))
    find_weights(fetch("dinov2-small").name)
    assert [method for method, path, _ in hub.requests if "resolve" in path] == []


def test_a_hub_file_at_hand_needs_the_hub_or_its_hash(hub, tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(CONTENT)
    with pytest.raises(UserError, match=r"There is no .*config\.json"):
        fetch("dinov2-small", file)
    (tmp_path / "config.json").write_text("{}")
    find_weights(fetch("dinov2-small", file).name)
    hub.repositories.clear()
    with pytest.raises(UserError, match="with --sha256 HEX"):
        fetch("dinov2-small", file)
    find_weights(fetch("dinov2-small", file, DIGEST).name)
    with pytest.raises(UserError, match="is not the published file"):
        fetch("dinov2-small", file, "0" * 64)


def test_files_that_changed_in_the_cache_are_not_used(server):
    path = fetch("vgg16") / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\1")
    with pytest.raises(UserError, match="is not what was fetched"):
        find_weights("vgg16")
    fetch("vgg16")
    assert path.read_bytes() == content
    path.unlink()
    with pytest.raises(UserError, match="is not what was fetched"):
        find_weights("vgg16")


def test_a_network_about_whose_file_nothing_is_known_is_not_fetched(server, cache, monkeypatch, tmp_path):
    replace_row(monkeypatch, networks, "vgg16", dataclasses.replace(networks["vgg16"], sha256=""))
    with pytest.raises(UserError, match=r"Nothing is known about the published file of vgg16.*--sha256 HEX"):
        fetch("vgg16")
    assert not server.requests
    find_weights(fetch("vgg16", sha256=DIGEST).name)


def test_pytorch_is_missed_before_anything_is_downloaded(server, monkeypatch):
    row = dataclasses.replace(networks["vgg16"], url=f"{server.url}/vgg.pth")
    replace_row(monkeypatch, networks, "vgg16", row)
    monkeypatch.setattr(tensors, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs PyTorch: pip install fqgan-jax\[torch\]"):
        fetch("vgg16")
    assert not server.requests


@pytest.mark.torch
def test_a_pytorch_file_is_kept_as_safetensors(server, monkeypatch, tmp_path):
    torch = pytest.importorskip("torch")
    state = {"transposed": torch.arange(12.0).reshape(3, 4).T, "count": torch.tensor(5)}
    torch.save(state, tmp_path / "vgg.pth")
    server.files["/vgg.pth"] = (tmp_path / "vgg.pth").read_bytes()
    digest = hashlib.sha256(server.files["/vgg.pth"]).hexdigest()
    replace_row(
        monkeypatch,
        networks,
        "vgg16",
        dataclasses.replace(networks["vgg16"], url=f"{server.url}/vgg.pth", sha256=digest),
    )
    kept = read_tensors(fetch("vgg16") / "model.safetensors")
    np.testing.assert_array_equal(kept["transposed"], np.arange(12).reshape(3, 4).T)
    assert kept["count"].shape == ()
    assert kept["count"] == 5


def test_partly_known_hashes_stand_in_the_published_files_names():
    partly = [network for network in networks.values() if 0 < len(network.sha256) < 64]
    assert {network.name for network in partly} == {"vgg16", "inception-fid"}
    assert all(network.file_name.endswith(f"-{network.sha256}.pth") for network in partly)


@pytest.mark.parametrize("content", [b'{"layer_norm_eps": 1e-5}', b"<html>gone</html>", b"{", b"[]"])
def test_a_config_that_is_not_the_published_one_is_not_installed(content, hub, cache):
    hub.damaged[f"{DINO}/config.json"] = content
    with pytest.raises(UserError, match=r"config\.json.*run the command again"):
        fetch("dinov2-small")
    assert not (cache / "dinov2-small").exists()
    hub.damaged.clear()
    find_weights(fetch("dinov2-small").name)


@pytest.mark.parametrize("content", [b"<html>gone</html>", b"{", b"[]"])
def test_a_published_config_must_be_json(content, hub, cache):
    hub.add(DINO, {"config.json": content, "model.safetensors": CONTENT})
    with pytest.raises(UserError, match=r"config\.json"):
        fetch("dinov2-small")
    assert not (cache / "dinov2-small").exists()


@pytest.mark.parametrize("digest", ["", "ab", "z" * 64])
def test_a_hash_of_the_hub_that_is_none_accepts_nothing(digest, hub, cache):
    lfs = {"size": len(CONTENT), "sha256": digest, "pointerSize": 134}
    info = {"id": DINO, "sha": "c0ffee", "siblings": [{"rfilename": "model.safetensors", "lfs": lfs}]}
    hub.answers[f"/api/models/{DINO}/revision/main"] = (200, json.dumps(info).encode())
    with pytest.raises(UserError, match="publishes no SHA-256"):
        fetch("dinov2-small")
    assert_nothing_is_left(cache)


@pytest.mark.parametrize("answer", [b"<html>", b"", b"[]", b'{"id": 3}'])
def test_answers_of_the_hub_that_are_none(answer, hub, cache):
    hub.answers[f"/api/models/{DINO}/revision/main"] = (200, answer)
    with pytest.raises(UserError, match="hub"):
        fetch("dinov2-small")
    assert_nothing_is_left(cache)


@pytest.mark.parametrize("digest", ["ab", "nothex!!", "0" * 65])
def test_a_given_hash_that_is_none(digest, server):
    with pytest.raises(UserError, match="is no SHA-256"):
        fetch("vgg16", sha256=digest)


def test_a_server_that_drips_is_given_up(server, cache, monkeypatch):
    monkeypatch.setattr("fqgan_jax.pretrained.fetching._SECONDS", 0.5)
    server.pause = 0.05
    with pytest.raises(UserError, match=r"only \d+ bytes came in \d+ seconds"):
        fetch("vgg16")
    server.pause = 0.0
    find_weights(fetch("vgg16").name)  # goes on where it stopped


def test_what_is_known_of_a_file_is_said_and_a_change_warned_of(server, caplog, cache):
    fetch("vgg16")
    assert f"Only the first 8 digits of the SHA-256 of vgg16 are published; this file's is {DIGEST}" in caplog.text
    (cache / "vgg16" / "model.safetensors").write_bytes(b"damaged")
    record = json.loads((cache / "vgg16" / "source.json").read_text())
    record["published"]["sha256"] = "1" * 64
    (cache / "vgg16" / "source.json").write_text(json.dumps(record))
    fetch("vgg16")
    assert f"vgg16 was another file when it was fetched before, with SHA-256 {'1' * 64}" in caplog.text


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"files": 3}', b'{"files": {"model.safetensors": 3}}'])
def test_damaged_records_are_replaced(content, server, cache):
    fetch("vgg16")
    (cache / "vgg16" / "source.json").write_bytes(content)
    with pytest.raises(UserError, match="fqgan weights fetch vgg16"):
        find_weights("vgg16")
    find_weights(fetch("vgg16").name)
