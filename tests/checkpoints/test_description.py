"""What is written beside a model comes back."""

import json

import numpy as np
import pytest

from fqgan_jax.checkpoints import (
    ModelDescription,
    is_export_folder,
    read_description,
    read_export,
    write_description,
    write_export,
)
from fqgan_jax.errors import UserError

FIELDS = {"grid": [4, 4], "dtype": "float32"}
TOKENIZER = ModelDescription(kind="tokenizer", fields=FIELDS)
GENERATOR = ModelDescription(kind="generator", fields=FIELDS, class_names=("ant", "bee"), tokenizer="0a1b")


@pytest.mark.parametrize("description", [TOKENIZER, GENERATOR], ids=lambda description: description.kind)
def test_descriptions_come_back(description, tmp_path):
    write_description(tmp_path, description)
    assert read_description(tmp_path) == description
    assert not is_export_folder(tmp_path)


def test_the_names_in_the_file_stay(tmp_path):
    write_description(tmp_path, GENERATOR)
    written = json.loads((tmp_path / "model.json").read_text())
    assert written.pop("versions").keys() == {"jax", "flax", "orbax-checkpoint"}
    assert written == {"kind": "generator", "fields": FIELDS, "class_names": ["ant", "bee"], "tokenizer": "0a1b"}
    assert "tokenizer" not in TOKENIZER.to_json()


def test_exports_come_back(tmp_path):
    params = {"layer": {"kernel": np.arange(6.0).reshape(2, 3).T, "bias": np.float32([1, 2])}}
    write_export(tmp_path / "export", TOKENIZER, params)
    assert is_export_folder(tmp_path / "export")
    assert read_description(tmp_path / "export") == TOKENIZER
    read = read_export(tmp_path / "export")
    np.testing.assert_array_equal(read["layer"]["kernel"], params["layer"]["kernel"], strict=True)
    np.testing.assert_array_equal(read["layer"]["bias"], params["layer"]["bias"], strict=True)


def test_a_folder_without_a_model_is_explained(tmp_path):
    with pytest.raises(UserError, match="holds no model: give a work folder"):
        read_description(tmp_path)
