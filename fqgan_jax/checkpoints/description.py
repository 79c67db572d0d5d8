"""The description beside every saved model, and the native export folder (description + safetensors)."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree

from fqgan_jax.errors import UserError
from fqgan_jax.files import write_atomically

DESCRIPTION = "model.json"
PARAMETERS = "params.safetensors"


def write_description(folder: Path, kind: str, description: dict) -> None:
    """Writes `model.json`: the kind ("tokenizer" or "generator"), the module's fields, classes, package versions."""
    versions = {name: version(name) for name in ("jax", "flax", "orbax-checkpoint")}
    write_atomically(folder / DESCRIPTION, json.dumps({"kind": kind, **description, "versions": versions}, indent=2))


def read_description(folder: Path, kind: str) -> dict:
    """Reads `model.json` of a work folder or an export folder.

    Raises:
      UserError: no model in this folder, or one of the other kind.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(f"{folder} holds no model: give a work folder of `fqgan train` or an export folder.")
    description = json.loads(path.read_text())
    if description["kind"] != kind:
        raise UserError(f"{folder} holds a {description['kind']}, but a {kind} is needed here.")
    return description


def described_kind(folder: Path) -> str | None:
    """The kind of model a folder describes; None where it describes none."""
    path = folder / DESCRIPTION
    return json.loads(path.read_text())["kind"] if path.is_file() else None


def write_export(folder: Path, kind: str, description: dict, params: PyTree) -> None:
    """Writes a native export folder: `model.json` and `params.safetensors`."""
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    flat = {name: np.ascontiguousarray(leaf) for name, leaf in flatten_dict(params, sep="/").items()}
    write_atomically(folder / PARAMETERS, save(flat))
    write_description(folder, kind, description)


def read_export(folder: Path) -> PyTree:
    """Parameters of a native export folder."""
    from safetensors.numpy import load_file

    return unflatten_dict(load_file(folder / PARAMETERS), sep="/")


def fingerprint(fields: dict, params: PyTree) -> str:
    """A hash of a model: what it computes and every parameter's bytes."""
    computed = {name: value for name, value in fields.items() if name not in ("remat", "chunk_tokens")}
    digest = hashlib.sha256(json.dumps(computed, sort_keys=True).encode())
    for name, leaf in sorted(flatten_dict(params, sep="/").items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()[:16]
