"""Numbers that are compared: how an array is summarized, how far two results are apart, and the file of stored ones.

The stored numbers were made on a CPU in float32. After a change that is meant to change them:

    JAX_PLATFORMS=cpu fqgan check --write-numbers fqgan_jax/check/numbers.json
"""

import json
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, PyTree

from fqgan_jax.errors import UserError
from fqgan_jax.files import write_atomically

Numbers = Mapping[str, np.ndarray]

STORED = Path(__file__).with_name("numbers.json")
PROJECTIONS = 4


def summary(*arrays: np.ndarray) -> Float[np.ndarray, " 5"]:
    """Returns the norm of all arrays together, and their products with fixed vectors of random signs.

    An error anywhere in the arrays moves each of these numbers by about the norm of the error.
    """
    flat = np.concatenate([np.asarray(array, np.float64).ravel() for array in arrays])
    # RandomState and not Generator: its streams are the same in every version of NumPy.
    signs = 2 * np.random.RandomState(flat.size).randint(0, 2, (PROJECTIONS, flat.size)) - 1
    return np.array([np.linalg.norm(flat), *(signs @ flat)])


def summaries(tree: PyTree, title: str) -> dict[str, np.ndarray]:
    """Returns the summary of each top-level branch of a tree of arrays, named "TITLE BRANCH"."""
    return {f"{title} {name}": summary(*jax.tree.leaves(branch)) for name, branch in tree.items()}


def deviation(computed: Numbers, expected: Numbers) -> tuple[float, str]:
    """Returns the largest relative deviation, and the name of the array that has it.

    The deviation of an array is the norm of the difference over the norm of what is expected (over 1 if that is zero).
    It is NaN if something computed is, and infinite if an array is missing or of another shape.
    """

    def relative(name: str) -> float:
        ours, theirs = np.asarray(computed.get(name), float), np.asarray(expected.get(name), float)
        if name not in computed or name not in expected or ours.shape != theirs.shape:
            return float("inf")
        return float(np.linalg.norm(ours - theirs) / (np.linalg.norm(theirs) or 1.0))

    deviations = {name: relative(name) for name in (*computed, *(name for name in expected if name not in computed))}
    worst = max(deviations, key=lambda name: (np.isnan(deviations[name]), deviations[name]))
    return deviations[worst], worst


def read_numbers(file: Path) -> dict[str, Numbers]:
    """Returns the stored numbers of each part.

    Raises:
      UserError: the file is missing or holds something else.
    """
    try:
        parts = json.loads(file.read_text())["parts"]
        return {
            part: {name: np.array(values, float) for name, values in numbers.items()} for part, numbers in parts.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} holds no numbers of fqgan check: write them with --write-numbers FILE.") from error


def write_numbers(file: Path, parts: Mapping[str, Numbers], made_on: Mapping[str, str]) -> None:
    """Writes the numbers of each part, and what they were made on."""
    values = {
        part: {name: np.asarray(array, float).tolist() for name, array in numbers.items()}
        for part, numbers in parts.items()
    }
    write_atomically(file, json.dumps({"made on": dict(made_on), "parts": values}, indent=1) + "\n")
