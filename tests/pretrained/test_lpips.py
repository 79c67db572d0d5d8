"""Reading VGG16 and the LPIPS heads as they are published."""

import dataclasses

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from support import golden_data, golden_vgg
from support.rows import replace_row

from fqgan_jax.errors import UserError
from fqgan_jax.files import sha256_of
from fqgan_jax.pretrained.fetching import fetch
from fqgan_jax.pretrained.lpips import import_lpips, load_lpips
from fqgan_jax.pretrained.weights import networks


def published():
    """VGG16 with its classifier (small here, for it is not read), and the heads."""
    return golden_vgg.features() | {"classifier.0.weight": np.zeros((2, 2), np.float32)}, golden_vgg.heads()


@pytest.mark.torch
def test_torch_files_and_safetensors_give_the_same_parameters(tmp_path):
    torch = pytest.importorskip("torch")
    for name, state in zip(("vgg", "heads"), published(), strict=True):
        save_file(state, tmp_path / f"{name}.safetensors")
        torch.save({key: torch.from_numpy(tensor) for key, tensor in state.items()}, tmp_path / f"{name}.pth")
    one, other = (load_lpips(tmp_path / f"vgg{end}", tmp_path / f"heads{end}") for end in (".safetensors", ".pth"))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    weight = golden_data.weight("features.28.weight", (512, 512, 3, 3))
    np.testing.assert_array_equal(one["vgg"]["features28"]["kernel"], weight.transpose(2, 3, 1, 0))


def test_without_files_the_caches_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("FQGAN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="fqgan weights fetch vgg16"):
        load_lpips()
    for name, state in zip(("vgg16", "lpips-vgg16"), published(), strict=True):
        file = tmp_path / f"{name}.safetensors"
        save_file(state, file)
        replace_row(monkeypatch, networks, name, dataclasses.replace(networks[name], sha256=sha256_of(file)))
        fetch(name, file)
    expected = load_lpips(tmp_path / "vgg16.safetensors", tmp_path / "lpips-vgg16.safetensors")
    jax.tree.map(np.testing.assert_array_equal, load_lpips(), expected)


@pytest.mark.torch
def test_a_torch_file_that_would_run_code_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"features.0.weight": print}, tmp_path / "vgg.pth")
    with pytest.raises(UserError, match="no code in it was run"):
        load_lpips(tmp_path / "vgg.pth", tmp_path / "heads.pth")


def test_files_that_are_missing_or_cut_short(tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        load_lpips(tmp_path / "vgg.safetensors", tmp_path / "heads.safetensors")
    save_file({"features.0.bias": np.zeros(64, np.float32)}, tmp_path / "vgg.safetensors")
    content = (tmp_path / "vgg.safetensors").read_bytes()
    (tmp_path / "vgg.safetensors").write_bytes(content[:-10])
    with pytest.raises(UserError, match="damaged"):
        load_lpips(tmp_path / "vgg.safetensors", tmp_path / "heads.safetensors")


def test_negative_heads_and_wrong_tensors_are_refused():
    vgg, heads = published()
    with pytest.raises(UserError, match=r"unexpected: classifier\.0\.weight"):
        import_lpips(vgg, heads)
    del vgg["classifier.0.weight"]
    heads["lin3.model.1.weight"] *= -1
    with pytest.raises(UserError, match=r"lin3\.model\.1\.weight have negative weights"):
        import_lpips(vgg, heads)
    del heads["lin3.model.1.weight"]
    with pytest.raises(UserError, match=r"missing: lin3\.model\.1\.weight"):
        import_lpips(vgg, heads)
