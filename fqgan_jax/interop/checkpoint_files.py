"""Reads tensors of published checkpoint files: `.safetensors`, and PyTorch's `.pt`, of which nothing is executed."""

import argparse
import json
import logging
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fqgan_jax.errors import UserError
from fqgan_jax.interop.correspondence import first_names

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
METADATA = "fqgan_jax"  # where our own exports keep the model's description

# Where a published file keeps its weights, the first that is present: the moving average before the raw weights.
_WEIGHTS = ("ema", "model", "module", "state_dict")
# Wrappers of PyTorch (data parallel, compiled) leave their names in front of every tensor's.
_WRAPPERS = ("module.", "_orig_mod.")


class CheckpointFile(NamedTuple):
    """Tensors by name (bfloat16 and float16 as float32), and the model's description where our export left one."""

    tensors: dict[str, np.ndarray]
    description: dict[str, Any]


def is_checkpoint_file(path: Path) -> bool:
    """Whether a path names a file of another framework instead of a folder of ours."""
    return path.suffix in SUFFIXES or path.is_file()


def read_checkpoint_file(path: Path) -> CheckpointFile:
    """Reads the weights of a checkpoint file; where it holds a moving average, that one, and logs it.

    Raises:
      UserError: not such a file, a damaged one, or one that would run code.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in SUFFIXES:
        return _read_torch(path)
    raise UserError(f"{path} is no checkpoint file: its name must end in {', '.join(SUFFIXES)}.")


def _read_safetensors(path: Path) -> CheckpointFile:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: _to_numpy(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or no safetensors file ({error}): get it again.") from error
    return CheckpointFile(_unwrapped(tensors), json.loads(metadata.get(METADATA, "{}")))


def _read_torch(path: Path) -> CheckpointFile:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise UserError(
            f"Reading {path} needs PyTorch: pip install fqgan-jax[torch], or bring the file as .safetensors."
        ) from error
    try:
        # Plain data only; the published files also hold their command line's options.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors and plain values, or is no checkpoint; nothing of it was run "
            f"({_first_line(error)}). Save its state dict alone, or as .safetensors."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged or no PyTorch file ({_first_line(error)}): get it again.") from error
    return CheckpointFile(*_select(content, path, torch.Tensor))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _select(content: Any, path: Path, tensor_type: type) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The weights among what a PyTorch file holds."""
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a dict of tensors: it is no checkpoint.")
    name = next((name for name in _WEIGHTS if isinstance(content.get(name), dict) and content[name]), None)
    state = content if name is None else content[name]
    if name == "ema":
        logging.getLogger(__name__).info("Using the moving average (ema) of the weights in %s.", path)
    tensors = {key: _to_numpy(value) for key, value in state.items() if isinstance(value, tensor_type)}
    if not tensors:
        raise UserError(f"{path} holds no tensors; its entries: {first_names([str(key) for key in content])}.")
    description = content.get(METADATA)
    return _unwrapped(tensors), description if isinstance(description, dict) else {}


def _to_numpy(tensor: Any) -> np.ndarray:
    """Half precision as float32; everything else as it is."""
    if hasattr(tensor, "is_floating_point"):  # PyTorch's
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return tensor.astype(np.float32) if tensor.dtype.name in ("bfloat16", "float16") else tensor


def _unwrapped(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return tensors
