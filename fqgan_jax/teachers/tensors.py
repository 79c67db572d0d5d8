"""Published tensors: their files (safetensors, or what torch.save wrote), and their way into our parameters."""

import pickle
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from fqgan_jax.errors import UserError
from fqgan_jax.interop.correspondence import Rule, check_tensors, correspondence, scatter

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
    return {name: tensor.contiguous().numpy() for name, tensor in state.items() if not name.startswith(unused)}


def import_tensors(
    state: Mapping[str, np.ndarray], rules: Sequence[Rule], module: nn.Module, image_size: int, inputs: int, what: str
) -> dict:
    """Parameters (nested, float32) of a module of so many image inputs from published tensors.

    Raises:
      UserError: tensors that are missing, unexpected or mis-shaped for `what`, by name.
    """
    images = [jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)] * inputs
    params = jax.eval_shape(module.init, jax.random.key(0), *images)["params"]
    shapes = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(params, sep="/").items()}
    entries = correspondence(rules, shapes, ())
    check_tensors(entries, state, what)
    return scatter(entries, state)
