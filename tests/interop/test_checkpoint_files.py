"""Published files through `load_tokenizer` and `load_generator`: what is read, what is refused and how it is said."""

import argparse
import logging
import os
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file
from support import golden_data

from fqgan_jax import load_generator, load_tokenizer
from fqgan_jax.cli.main import main
from fqgan_jax.errors import UserError
from fqgan_jax.interop import import_params
from fqgan_jax.interop.checkpoint_files import read_checkpoint_file

HEADS = {"adapter_heads": 4, "feature_heads": 4}


@pytest.fixture(scope="module")
def state():
    """Tensors of a small published tokenizer."""
    return golden_data.state_dict("trajectory")


def identical(params, expected):
    params, expected = (traverse_util.flatten_dict(tree, sep="/") for tree in (params, expected))
    assert params.keys() == expected.keys()
    return all(np.array_equal(params[name], expected[name]) for name in params)


def test_safetensors(tmp_path, state):
    save_file(state, tmp_path / "tokenizer.safetensors", metadata={"format": "pt"})
    tokenizer = load_tokenizer(tmp_path / "tokenizer.safetensors", **HEADS)
    assert identical(tokenizer.params, import_params(state, tokenizer.module))
    module = tokenizer.module
    assert (module.num_codebooks, module.codebook_size, module.code_dim, module.grid) == (2, 16, 8, (8, 8))
    assert (module.adapter_heads, module.adapter_depth, module.feature_widths) == (4, 2, (None, 48))
    assert tokenizer.image_size == 64
    assert load_tokenizer(tmp_path / "tokenizer.safetensors", **HEADS, dtype="bfloat16").module.dtype == "bfloat16"


def test_generator(tmp_path):
    state = golden_data.state_dict("far_triple_tiny")
    save_file(state, tmp_path / "far.safetensors")
    generator = load_generator(tmp_path / "far.safetensors", num_heads=4, grid=(4, 4))
    assert identical(generator.params, import_params(state, generator.module))
    golden = golden_data.arrays("far_triple_tiny")
    logits = generator.logits(golden["tokens"], golden["labels"])
    assert golden_data.relative_error(logits, golden["logits"]) < 1e-4


def test_half_precision(tmp_path, state):
    half = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in state.items()}
    save_file(half, tmp_path / "half.safetensors")
    tensors = read_checkpoint_file(tmp_path / "half.safetensors").tensors
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, half[name].astype(np.float32), strict=True)


@pytest.mark.torch
class TestTorchFiles:
    def save(self, content, path):
        torch = pytest.importorskip("torch")

        def with_tensors(value):
            if isinstance(value, dict):
                return {name: with_tensors(item) for name, item in value.items()}
            return torch.tensor(value) if isinstance(value, np.ndarray) else value

        torch.save(with_tensors(content), path)
        return path

    def test_published_layout(self, tmp_path, state, caplog):
        """The moving average is preferred, and said so; options of a command line do no harm."""
        raw = {name: tensor + 1 for name, tensor in state.items()}
        content = {"model": raw, "optimizer": {"step": 3}, "steps": 7, "args": argparse.Namespace(lr=1e-4)}
        path = self.save(content, tmp_path / "raw.pt")
        tokenizer = load_tokenizer(path, **HEADS)
        assert identical(tokenizer.params, import_params(raw, tokenizer.module))
        path = self.save(content | {"ema": state}, tmp_path / "ema.pt")
        with caplog.at_level(logging.INFO):
            tokenizer = load_tokenizer(path, **HEADS)
        assert identical(tokenizer.params, import_params(state, tokenizer.module))
        assert "moving average (ema)" in caplog.text

    @pytest.mark.parametrize("content", [lambda s: {"module": s}, lambda s: {"state_dict": s}, lambda s: s])
    def test_other_layouts(self, tmp_path, content):
        state = golden_data.state_dict("far_dual_tiny")
        wrapped = {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}
        path = self.save(content(wrapped), tmp_path / "far.pt")
        generator = load_generator(path, num_heads=4, grid=(4, 4))
        assert identical(generator.params, import_params(state, generator.module))

    def test_code_is_not_run(self, tmp_path, state):
        class Command:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "executed"),)

        torch = pytest.importorskip("torch")
        torch.save({"model": {"x": torch.zeros(1)}, "args": Command()}, tmp_path / "evil.pt")
        (tmp_path / "bare.pt").write_bytes(pickle.dumps(Command(), protocol=2))
        for name in ("evil.pt", "bare.pt"):
            with pytest.raises(UserError, match="no code in it was run"):
                load_tokenizer(tmp_path / name)
        assert not (tmp_path / "executed").exists()

    @pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
    def test_truncated(self, tmp_path, kept):
        path = self.save({"model": golden_data.state_dict("far_dual_tiny")}, tmp_path / "whole.pt")
        data = path.read_bytes()
        path.write_bytes(data[: kept if kept > 1 else int(kept * len(data))])
        with pytest.raises(UserError, match=r"whole\.pt"):
            load_generator(path)

    def test_nothing_to_load(self, tmp_path):
        with pytest.raises(UserError, match="holds a list"):
            load_tokenizer(self.save([1, 2], tmp_path / "list.pt"))
        with pytest.raises(UserError, match="holds no tensors; its entries: steps"):
            load_tokenizer(self.save({"steps": 1}, tmp_path / "empty.pt"))
        with zipfile.ZipFile(tmp_path / "zip.pt", "w") as file:
            file.writestr("readme", "no checkpoint")
        with pytest.raises(UserError, match="damaged"):
            load_tokenizer(tmp_path / "zip.pt")


@pytest.mark.parametrize("kept", [0, 5, 1000, 0.9])
def test_truncated_safetensors(tmp_path, state, kept):
    path = tmp_path / "tokenizer.safetensors"
    save_file(state, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(UserError, match="damaged or no safetensors file"):
        load_tokenizer(path)


def test_what_does_not_fit_is_named(tmp_path, state):
    path = tmp_path / "tokenizer.safetensors"
    missing = sorted(name for name in state if name.startswith("decoder.mid"))
    kept = {name: tensor for name, tensor in state.items() if name not in missing}
    save_file(kept | {"surplus": np.zeros(1, np.float32)}, path)
    with pytest.raises(UserError) as error:
        load_tokenizer(path, **HEADS)
    assert f"{len(missing)} missing: decoder.mid." in str(error.value)
    assert f"and {len(missing) - 10} more" in str(error.value)
    assert "1 unexpected: surplus" in str(error.value)


def test_wrong_files_and_settings(tmp_path, state, capsys):
    save_file(golden_data.state_dict("far_dual_tiny"), tmp_path / "far.safetensors")
    (tmp_path / "notes.txt").write_text("no model")
    save_file(state, tmp_path / "tokenizer.safetensors")
    for command, message in (
        ("far.safetensors", "no checkpoint of a tokenizer"),
        ("notes.txt", "its name must end in"),
        ("none.safetensors", "There is no checkpoint"),
    ):
        assert main(["reconstruct", "--checkpoint", f"{tmp_path}/{command}", "--out", f"{tmp_path}/out", "x.png"]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="not loaded with 'num_codebooks'"):
        load_tokenizer(tmp_path / "tokenizer.safetensors", num_codebooks=3)
    with pytest.raises(UserError, match="no checkpoint of a FAR generator"):
        load_generator(tmp_path / "tokenizer.safetensors")
