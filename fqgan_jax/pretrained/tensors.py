"""Published tensors of frozen networks: reading their files, and importing them as parameters."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fqgan_jax.errors import UserError
from fqgan_jax.interop.checkpoint_files import read_checkpoint_file
from fqgan_jax.interop.correspondence import Rule, check_tensors, correspondence, parameter_shapes, scatter

# A network's files in a folder of the hub or of our cache.
TENSORS = "model.safetensors"
CONFIG = "config.json"
# PyTorch's count of training steps, which some files hold for every normalization.
_COUNTER = "num_batches_tracked"


def read_tensors(path: Path, unused: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Returns name to tensor of a published file, without those whose names start with one of `unused`.

    Raises:
      UserError: no such file, a damaged one, one that would run code, or a PyTorch file if PyTorch is not installed.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    tensors = read_checkpoint_file(path).tensors
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(unused)}


def check_reader(file: str) -> None:
    """Raises `UserError` if a file of this name needs PyTorch to be read and it is not installed."""
    if not file.endswith(".safetensors") and find_spec("torch") is None:
        raise UserError(f"Reading {file} needs PyTorch: pip install fqgan-jax[torch].")


def import_tensors(
    state: Mapping[str, np.ndarray],
    rules: Sequence[Rule],
    module: nn.Module,
    *,
    image_size: int,
    num_inputs: int = 1,
    model: str,
) -> dict:
    """Returns the parameters (nested, float32) of a module from published tensors.

    Args:
      state: published name to tensor.
      rules: correspondence of the names.
      module: takes `num_inputs` batches of images.
      image_size: side of these images.
      num_inputs: how many the module takes.
      model: what the tensors belong to, for the message.

    Raises:
      UserError: tensors that are missing, unexpected or mis-shaped, by name.
    """
    state = {name: tensor for name, tensor in state.items() if not name.endswith(_COUNTER)}
    images = [jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)] * num_inputs
    entries = correspondence(rules, parameter_shapes(module, *images), ())
    check_tensors(entries, state, model)
    return scatter(entries, state)
