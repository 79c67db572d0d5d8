"""Files of tensors, as published: safetensors, or what torch.save wrote."""

import pickle
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fqgan_jax.errors import UserError

# A network's files in a folder of the hub or of our cache.
TENSORS = "model.safetensors"
CONFIG = "config.json"


def read_tensors(path: Path, unused: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Name to tensor, without those whose names start with one of `unused`. Runs no code from the file.

    Raises:
      UserError: no such file, a damaged one, or a PyTorch file without PyTorch at hand.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    return (_read_safetensors if path.suffix == ".safetensors" else _read_torch)(path, unused)


def check_reader(file: str) -> None:
    """UserError where a file of this name needs PyTorch to be read and it is not installed."""
    if not file.endswith(".safetensors") and find_spec("torch") is None:
        raise UserError(f"Reading {file} needs PyTorch: install it with pip install 'fqgan-jax[torch]'.")


def _read_safetensors(path: Path, unused: tuple[str, ...]) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys() if not name.startswith(unused)}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{path} is no whole safetensors file: {error}.") from error


def _read_torch(path: Path, unused: tuple[str, ...]) -> dict[str, np.ndarray]:
    check_reader(str(path))
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is no whole PyTorch file of tensors.") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise UserError(f"{path} holds something else than tensors by name.")
    return {name: tensor.numpy() for name, tensor in state.items() if not name.startswith(unused)}
