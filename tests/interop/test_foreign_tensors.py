"""Tensor files from strangers: what cannot be a parameter is refused by name, before it is used."""

import json
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from fqgan_jax import api
from fqgan_jax.api import load_model, load_tokenizer
from fqgan_jax.errors import UserError
from fqgan_jax.interop.checkpoint_files import is_checkpoint_file, read_checkpoint_file

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def published(trained_tokenizer, tmp_path_factory):
    """Published tensors of a tiny tokenizer, and the description that its export holds."""
    from fqgan_jax.cli.main import main

    folder = tmp_path_factory.mktemp("export") / "tokenizer"
    assert (
        main(["export", "--checkpoint", str(trained_tokenizer), "--format", "safetensors", "--out", str(folder)]) == 0
    )
    (file,) = folder.rglob("*.safetensors")
    read = read_checkpoint_file(file)
    return read.tensors, read.description


def write(path, tensors, description):
    metadata = {"fqgan_jax": description if isinstance(description, str) else json.dumps(description)}
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path, metadata=metadata)
    return path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: np.where(x == x.max(), np.nan, x).astype(np.float32), "NaN or infinite"),
        (lambda x: np.full_like(x, -np.inf), "NaN or infinite"),
        (lambda x: np.full(x.shape, 1e300), "too large for float32"),
        (lambda x: x > 0, "of type bool"),
        (lambda x: x.astype(np.int64), "of type int64"),
        (lambda x: x.astype(np.complex64), "of type complex64"),
    ],
)
def test_tensors_that_are_no_parameters(change, reason, published, tmp_path):
    tensors, description = published
    name = "encoder.conv_in.weight"
    path = write(tmp_path / "x.safetensors", tensors | {name: change(tensors[name])}, description)
    with pytest.raises(UserError, match=f"{name} \\({reason}\\)"):
        load_tokenizer(path)


def test_small_types_of_numbers_are_read(published, tmp_path):
    tensors = published[0] | {"encoder.conv_in.bias": np.zeros(8, ml_dtypes.bfloat16)}
    path = write(tmp_path / "x.safetensors", tensors, {})
    assert read_checkpoint_file(path).tensors["encoder.conv_in.bias"].dtype == np.float32
    torch.save({"x": torch.ones(3, dtype=torch.float8_e4m3fn)}, tmp_path / "x.pt")
    np.testing.assert_array_equal(read_checkpoint_file(tmp_path / "x.pt").tensors["x"], np.ones(3, np.float32))


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is no JSON object"),
        ({"kind": 3, "fields": {}}, "kind is 3"),
        ({"kind": "tokenizer"}, "fields is None"),
        ({"kind": "tokenizer", "fields": [1]}, "fields is"),
        ({"kind": "tokenizer", "fields": {}, "class_names": "cats"}, "class_names is 'cats'"),
        ({"kind": "tokenizer", "fields": {}, "tokenizer": 5}, "tokenizer is 5"),
    ],
)
def test_descriptions_that_are_none(description, message, published, tmp_path):
    path = write(tmp_path / "x.safetensors", published[0], description)
    with pytest.raises(UserError, match=message):
        load_model(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_codebooks": 10**9},
        {"adapter_depth": 10**8},
        {"adapter_heads": 0},
        {"multipliers": [1] * 64},
        {"grid": [2**40, 1]},
        {"grid": [0, 4]},
        {"temperature": float("nan")},
        {"dtype": "float99"},
        {"normalized": "yes"},
        {"feature_widths": [10**12, None]},
        {"z_channels": 1.5},
        {"codebook_size": True},
    ],
    ids=str,
)
def test_fields_out_of_range_take_no_memory(fields, published, tmp_path, trained_tokenizer):
    tensors, description = published
    changed = description | {"fields": description["fields"] | fields}
    path = write(tmp_path / "x.safetensors", tensors, changed)
    (name,) = fields
    with pytest.raises(UserError, match=name):
        load_tokenizer(path)
    # The same in the folder of an export.
    load_tokenizer(trained_tokenizer).save(tmp_path / "native")
    content = json.loads((tmp_path / "native" / "model.json").read_text())
    content["fields"] |= fields
    (tmp_path / "native" / "model.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=name):
        load_tokenizer(tmp_path / "native")


def test_native_exports_with_damaged_parameters(trained_tokenizer, tmp_path):
    load_tokenizer(trained_tokenizer).save(tmp_path)
    from safetensors.numpy import load_file

    file = tmp_path / "params.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    for damaged, reason in (
        (tensors | {name: np.full_like(tensors[name], np.nan)}, "NaN or infinite"),
        (tensors | {name: tensors[name][..., :1]}, "not"),
        ({key: value for key, value in tensors.items() if key != name}, "missing"),
        (tensors | {"new": np.ones(1, np.float32)}, "new \\(unexpected\\)"),
    ):
        save_file({key: np.ascontiguousarray(value) for key, value in damaged.items()}, file)
        with pytest.raises(UserError, match=reason):
            load_tokenizer(tmp_path)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged or no safetensors"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("header", [b"", b"{", b"[1]", b'{"a":{"dtype":"F32","shape":[9999999],"data_offsets":[0,4]}}'])
def test_safetensors_with_a_damaged_header(header, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    with pytest.raises(UserError, match="damaged or no safetensors"):
        read_checkpoint_file(tmp_path / "x.safetensors")


def test_parameters_of_pytorch_are_ordinary_tensors(tmp_path):
    torch.save({"model": {"x": torch.nn.Parameter(torch.ones(2)), 3: torch.ones(1)}}, tmp_path / "x.pt")
    read = read_checkpoint_file(tmp_path / "x.pt").tensors
    assert list(read) == ["x"]
    np.testing.assert_array_equal(read["x"], np.ones(2, np.float32))


@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch's own, of types that it will drop
@pytest.mark.parametrize(
    "tensor",
    [
        lambda: torch.ones(3).to_sparse(),
        lambda: torch.ones(3, device="meta"),
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    ],
    ids=["sparse", "meta", "quantized"],
)
def test_tensors_without_plain_values(tensor, tmp_path):
    torch.save({"x": tensor()}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"sparse, quantized or without values|no code in it was run"):
        read_checkpoint_file(tmp_path / "x.pt")


def test_a_record_that_is_not_what_was_written(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"x": torch.arange(1000.0)}, path)
    content = bytearray(path.read_bytes())
    position = content.find(struct.pack("<f", 500.0))
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not what was written"):
        read_checkpoint_file(path)


def test_compressed_records_are_refused(tmp_path):
    torch.save({"x": torch.zeros(10**6)}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as plain, zipfile.ZipFile(tmp_path / "y.pt", "w") as packed:
        for record in plain.namelist():
            packed.writestr(record, plain.read(record), zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="is damaged"):
        read_checkpoint_file(tmp_path / "y.pt")


def test_a_work_folder_may_be_named_like_a_file(trained_tokenizer, tmp_path):
    folder = tmp_path / "run.pt"
    folder.symlink_to(trained_tokenizer)
    assert not is_checkpoint_file(folder)
    assert isinstance(load_model(folder), api.Tokenizer)
