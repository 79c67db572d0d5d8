"""Reads tensors of published checkpoint files: `.safetensors`, and PyTorch's `.pt`, of which nothing is executed."""

import argparse
import dataclasses
import json
import logging
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from fqgan_jax.checkpoints.description import ModelDescription
from fqgan_jax.errors import UserError
from fqgan_jax.interop.correspondence import first_names
from fqgan_jax.storage import local_copy

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
METADATA = "fqgan_jax"  # under this name exports of fqgan_jax keep the model's description

# Names under which published files keep their weights; the first that is present is read, a moving average if possible.
_WEIGHTS = ("ema", "model", "module", "state_dict")
# Prefixes that wrappers of PyTorch (data parallel, compiled) leave in the name of every tensor.
_WRAPPERS = ("module.", "_orig_mod.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """Content of a checkpoint file.

    Attributes:
      tensors: by name; bfloat16 and float16 are converted to float32.
      description: description of the model, if an export of fqgan_jax wrote the file, else empty.
    """

    tensors: dict[str, np.ndarray]
    description: dict[str, Any]


def is_checkpoint_file(path: Path) -> bool:
    """Whether a path names a checkpoint file instead of a folder."""
    return (path.suffix in SUFFIXES and not path.is_dir()) or path.is_file()


def read_checkpoint_file(path: Path) -> CheckpointFile:
    """Reads the weights of a checkpoint file; the moving average if it holds one, which is logged.

    Raises:
      UserError: not such a file, a damaged one, or one that would run code.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in SUFFIXES:
        return _read_torch(path)
    raise UserError(f"{path} is no checkpoint file: its name must end in {', '.join(SUFFIXES)}.")


def read_further_sets(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Reads the sets of tensors of a PyTorch file that `read_checkpoint_file` leaves out, by their names in the file.

    "trained" are the weights beside which the file holds a moving average; "discriminator" is the discriminator. Other
    files have none of them.
    """
    if path.suffix == ".safetensors" or path.suffix not in SUFFIXES:
        return {}
    content, tensor_type = _torch_content(path)
    names = {"discriminator": "discriminator"}
    if "ema" in content:
        names |= dict.fromkeys(_WEIGHTS[1:], "trained")
    sets = {title: content[name] for name, title in names.items() if isinstance(content.get(name), dict)}
    return {title: _tensors(state, tensor_type, path) for title, state in sets.items()}


def _read_safetensors(path: Path) -> CheckpointFile:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(local_copy(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: _to_numpy(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise UserError(f"{path} is damaged or no safetensors file ({_first_line(error)}): get it again.") from error
    return CheckpointFile(tensors=_unwrapped(tensors), description=_description(metadata.get(METADATA, "{}"), path))


def _description(text: str, path: Path) -> dict[str, Any]:
    """The description in a file's metadata; for the rules of its parts see `ModelDescription`."""
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"The description in {path} (metadata {METADATA}) is damaged: get the file again.") from error
    if not isinstance(description, dict):
        raise UserError(f"The description in {path} (metadata {METADATA}) is no JSON object: get the file again.")
    if description:
        ModelDescription.from_json(description, where=f"{path}: ")
    return description


def _read_torch(path: Path) -> CheckpointFile:
    return _select(*_torch_content(path), path)


def _torch_content(path: Path) -> tuple[dict, type]:
    """The dict in a PyTorch file, and the type of its tensors."""
    try:
        import torch
    except ModuleNotFoundError as error:
        raise UserError(
            f"Reading {path} needs PyTorch: pip install fqgan-jax[torch], or bring the file as .safetensors."
        ) from error
    _check_archive(path)
    try:
        # Plain data only; published files also hold the options of their command line.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(local_copy(path), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors and plain values, or is no checkpoint; no code in it was run "
            f"({_first_line(error)}). Save its state dict alone, or as .safetensors."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged or no PyTorch file ({_first_line(error)}): get it again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a dict of tensors: it is no checkpoint.")
    return content, torch.Tensor


def _check_archive(path: Path) -> None:
    """Raises `UserError` if a PyTorch file's records are not those that were written; PyTorch does not look."""
    try:
        file = local_copy(path)
        if not zipfile.is_zipfile(file):
            return  # the older format, or no checkpoint
        with zipfile.ZipFile(file) as archive:
            # PyTorch stores records as they are: a few compressed bytes could fill the memory.
            packed = [record.filename for record in archive.infolist() if record.compress_type != zipfile.ZIP_STORED]
            damaged = packed[0] if packed else archive.testzip()
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise UserError(f"{path} is damaged or no PyTorch file ({_first_line(error)}): get it again.") from error
    if damaged is not None:
        raise UserError(f"{path} is damaged ({damaged} is not what was written): get it again.")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _select(content: dict, tensor_type: type, path: Path) -> CheckpointFile:
    """The weights in the content of a PyTorch file."""
    name = next((name for name in _WEIGHTS if isinstance(content.get(name), dict) and content[name]), None)
    state = content if name is None else content[name]
    if name == "ema":
        logging.getLogger(__name__).info("Using the moving average (ema) of the weights in %s.", path)
    tensors = _tensors(state, tensor_type, path)
    if not tensors:
        raise UserError(f"{path} holds no tensors; its entries: {first_names([str(key) for key in content])}.")
    description = content.get(METADATA)
    return CheckpointFile(tensors=tensors, description=description if isinstance(description, dict) else {})


def _tensors(state: dict, tensor_type: type, path: Path) -> dict[str, np.ndarray]:
    tensors: dict[str, Any] = {
        key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, tensor_type)
    }
    arrays = {}
    for name, tensor in tensors.items():
        plain = tensor.layout is _strided() and not (tensor.is_meta or tensor.is_quantized)
        if not plain:
            raise UserError(f"The tensor {name} in {path} is sparse, quantized or without values: save a dense one.")
        arrays[name] = (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
    return _unwrapped(arrays)


def _strided() -> Any:
    import torch

    return torch.strided


def _to_numpy(tensor: np.ndarray) -> np.ndarray:
    """The tensor; smaller types of floating-point numbers become float32."""
    is_small = tensor.dtype.name.startswith(("bfloat16", "float16", "float8"))
    return tensor.astype(np.float32) if is_small else tensor


def _unwrapped(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return tensors
