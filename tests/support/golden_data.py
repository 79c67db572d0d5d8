"""The golden data: what the published model computes from weights and images that anyone can draw again.

The folder is tests/golden/, or another set's, given by the environment variable FQGAN_GOLDEN (see its README.md).
"""

import importlib.util
import json
import os
from functools import cache
from pathlib import Path

import numpy as np

FOLDER = Path(os.environ.get("FQGAN_GOLDEN") or Path(__file__).parents[1] / "golden")


@cache
def seed() -> int:
    """Seed of the set."""
    return json.loads((FOLDER / "meta.json").read_text())["seed"]


@cache
def _recipe():
    spec = importlib.util.spec_from_file_location("golden_recipe", FOLDER / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The set's weight of a published name, float32."""
    return _recipe().golden_weight(name, tuple(shape), seed())


def image(shape: tuple[int, int, int, int], offset: int = 0, *, of_seed: int | None = None) -> np.ndarray:
    """Images (B, H, W, 3) in [-1, 1], float32, of the set's seed plus an offset, or of a seed that a file names."""
    return _recipe().golden_image(shape, seed() + offset if of_seed is None else of_seed)


def numbers(name: str):
    """Content of NAME.json: rows of a trajectory, gradients."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Tensor name to shape of state_dict_NAME.json."""
    return {tensor: tuple(shape) for tensor, shape in numbers(f"state_dict_{name}").items()}


def state_dict(name: str) -> dict[str, np.ndarray]:
    """All tensors of state_dict_NAME.json drawn by the recipe; statistics buffers are zeros."""
    return {
        tensor: np.zeros(shape, np.float32) if tensor.endswith("codebook_used") else weight(tensor, shape)
        for tensor, shape in shapes(name).items()
    }


def arrays(name: str) -> dict[str, np.ndarray]:
    """Content of NAME.npz."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def relative_error(value, expected) -> float:
    """Largest absolute difference over the largest absolute expected value."""
    value, expected = np.asarray(value, np.float64), np.asarray(expected, np.float64)
    if value.shape != expected.shape:
        raise AssertionError(f"shape {value.shape}, not {expected.shape}")
    return float(np.max(np.abs(value - expected)) / np.max(np.abs(expected)))
