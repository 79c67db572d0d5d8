"""The description beside every saved model, and the native export folder (description and safetensors)."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree

from fqgan_jax.config.rules import Either, Fields, Many, Nothing, Text
from fqgan_jax.errors import UserError
from fqgan_jax.files import read_json, write_atomically
from fqgan_jax.storage import local_copy

DESCRIPTION = "model.json"
PARAMETERS = "params.safetensors"


# What the parts of `model.json` may be, and those that it may lack.
_PARTS = {
    "kind": Text(empty=False),
    "fields": Fields(),
    "class_names": Many(Text()),
    "tokenizer": Either((Nothing(), Text())),
}
_OPTIONAL = {"class_names": (), "tokenizer": None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """Description of a saved model: the content of `model.json`.

    Attributes:
      kind: the name of a row of `models.fields.model_kinds` ("tokenizer", "generator").
      fields: the module's fields, as JSON holds them.
      class_names: names of the classes it was trained on, by label; empty if they are not known.
      tokenizer: for a generator, the fingerprint of the tokenizer whose codes it draws, "" if it is not known;
        None for other kinds.
    """

    kind: str
    fields: Mapping[str, Any]
    class_names: tuple[str, ...] = ()
    tokenizer: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A dict for JSON."""
        content = {"kind": self.kind, "fields": dict(self.fields), "class_names": list(self.class_names)}
        return content if self.tokenizer is None else content | {"tokenizer": self.tokenizer}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], *, where: str = "") -> Self:
        """The inverse of `to_json`.

        Raises:
          UserError: a part is missing or of another type.
        """
        for name, rule in _PARTS.items():
            rule.check(f"{where}{name}", content.get(name, _OPTIONAL.get(name)))
        return cls(
            kind=content["kind"],
            fields=content["fields"],
            class_names=tuple(content.get("class_names", ())),
            tokenizer=content.get("tokenizer"),
        )


def write_description(folder: Path, description: ModelDescription) -> None:
    """Writes `model.json`: the description, and the versions of the packages that wrote it."""
    versions = {name: version(name) for name in ("jax", "flax", "orbax-checkpoint")}
    content = description.to_json() | {"versions": versions}
    write_atomically(folder / DESCRIPTION, json.dumps(content, indent=2))


def read_description(folder: Path) -> ModelDescription:
    """Reads `model.json` of a work folder or an export folder.

    Raises:
      UserError: the folder holds no model, or a damaged description.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(f"{folder} holds no model: give a work folder of `fqgan train` or an export folder.")
    content = read_json(path, remedy="restore it, or train anew")
    return ModelDescription.from_json(content, where=f"{path}: ")


def write_export(folder: Path, description: ModelDescription, params: PyTree) -> None:
    """Writes a native export folder: `model.json` and `params.safetensors`."""
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    flat = {name: np.ascontiguousarray(leaf) for name, leaf in flatten_dict(params, sep="/").items()}
    write_atomically(folder / PARAMETERS, save(flat))
    write_description(folder, description)


def is_export_folder(folder: Path) -> bool:
    """Returns whether a folder is a native export, and not the work folder of a run."""
    return (folder / PARAMETERS).exists()


def read_export(folder: Path) -> PyTree:
    """Reads the parameters of a native export folder.

    Raises:
      UserError: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / PARAMETERS
    try:
        return unflatten_dict(load_file(local_copy(path)), sep="/")
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged or no safetensors file ({error}): get it again.") from error


def fingerprint(fields: dict, params: PyTree) -> str:
    """Hashes a model: the fields that say what it computes (see `identifying_fields`), and every parameter's bytes."""
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name, leaf in sorted(flatten_dict(params, sep="/").items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()[:16]
