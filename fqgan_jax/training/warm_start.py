"""Warm start: a run begins from the weights of another model, which may differ from it in parts.

A parameter of the same shape is taken. Learned positions are resized to another grid. A parameter that grows with K
keeps the parts of the sub-codebooks that both models have; everything else that does not fit begins anew.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, PyTree

from fqgan_jax.api import load_model
from fqgan_jax.checkpoints import (
    CheckpointName,
    Item,
    fingerprint,
    has_item,
    load_discriminator_params,
    load_params_and_average,
)
from fqgan_jax.data.transforms import Size
from fqgan_jax.errors import UserError, check
from fqgan_jax.files import read_json, write_atomically
from fqgan_jax.hub import local_checkpoint
from fqgan_jax.interop import import_discriminator, import_params, is_checkpoint_file, read_further_sets
from fqgan_jax.models.blocks import resize_positions
from fqgan_jax.models.fields import identifying_fields, model_kind
from fqgan_jax.training.state import TrainState

RECORD = "init_from.json"
LARGEST_FRESH = 0.5  # share of a network's numbers that may begin anew

Flat = dict[str, Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """What a run can start from.

    Attributes:
      module: the other model.
      fingerprint: identifies it.
      params: its parameters for inference.
      trained: its parameters beside their moving average; None if there is one set.
      discriminator: returns its discriminator's parameters for a discriminator of this kind, None without one.
    """

    module: nn.Module
    fingerprint: str
    params: PyTree
    trained: PyTree | None
    discriminator: Callable[[nn.Module, Size], PyTree | None]


def load_start(path: str, kind: str) -> Start:
    """Loads what `train.init_from` names, which is whatever `--checkpoint` takes.

    Raises:
      UserError: there is no model of this kind.
    """
    checkpoint = local_checkpoint(path)
    model = load_model(checkpoint)
    known = fingerprint(identifying_fields(model.module), model.params)
    check(model.kind == kind, f"train.init_from={path} holds a {model.kind}: a {kind} can start from a {kind} alone.")
    if is_checkpoint_file(checkpoint):
        sets = read_further_sets(checkpoint)
        trained = import_params(sets["trained"], model.module) if "trained" in sets else None

        def discriminator(module: nn.Module, image_size: Size) -> PyTree | None:
            tensors = sets.get("discriminator")
            return tensors and import_discriminator(tensors, module, image_size)

        return Start(
            module=model.module,
            fingerprint=known,
            params=model.params,
            trained=trained,
            discriminator=discriminator,
        )

    is_run = CheckpointName.parse(checkpoint).is_of_a_run

    def discriminator_of_run(*_: Any) -> PyTree | None:
        has_one = is_run and has_item(checkpoint, Item.DISCRIMINATOR)
        return load_discriminator_params(checkpoint) if has_one else None

    has_average = is_run and has_item(checkpoint, Item.EMA)
    trained = load_params_and_average(checkpoint)[0] if has_average else None
    return Start(
        module=model.module,
        fingerprint=known,
        params=model.params,
        trained=trained,
        discriminator=discriminator_of_run,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """How parameters were fitted, by their paths.

    Attributes:
      resized: positions of another grid.
      partly: parameters of which the common sub-codebooks were taken.
      fresh: parameters that begin anew.
      share: share of all numbers that were taken.
    """

    resized: tuple[str, ...]
    partly: tuple[str, ...]
    fresh: tuple[str, ...]
    share: float

    def sentence(self) -> str:
        """Says what was taken and what was not."""
        parts = [f"{self.share:.1%} of the numbers taken"]
        for title in ("resized", "partly", "fresh"):
            names = getattr(self, title)
            if names:
                shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
                parts.append(f"{title}: {shown}")
        return "; ".join(parts)


def fitted(fresh: PyTree, given: PyTree, *, modules: tuple[nn.Module, nn.Module]) -> tuple[PyTree, Fit]:
    """Fits parameters to those of another module.

    Args:
      fresh: the initialized parameters, which stay where nothing fits.
      given: the other model's.
      modules: the module of `fresh`, and the other one.

    Returns:
      The parameters, sharded as `fresh`, and what was done.

    Raises:
      UserError: most of the network would begin anew.
    """
    ours, theirs = flatten_dict(fresh, sep="/"), flatten_dict(given, sep="/")
    notes: dict[str, list[str]] = {"resized": [], "partly": [], "fresh": []}
    result, taken = dict(ours), 0
    for path, leaf in ours.items():
        value, note = _fit(path, leaf, theirs.get(path), modules=modules)
        if note:
            notes[note].append(path)
        if value is not None:
            result[path] = _written(leaf, value)
            taken += min(value.size, leaf.size)
    share = taken / sum(leaf.size for leaf in ours.values())
    fit = Fit(**{name: tuple(paths) for name, paths in notes.items()}, share=share)
    check(
        share >= 1 - LARGEST_FRESH,
        f"train.init_from: the other model does not fit ({fit.sentence()}). Choose the config that it was trained "
        "with, changed only in what should change.",
    )
    return unflatten_dict(result, sep="/"), fit


def _fit(path: str, leaf: Array, given: Any, *, modules: tuple[nn.Module, nn.Module]) -> tuple[Any, str]:
    """What of a given parameter belongs into one of ours, None if nothing does; and a note, empty if it fits."""
    if given is None or given.ndim != leaf.ndim:
        return None, "fresh"
    if given.shape == leaf.shape:
        return given, ""
    ours, theirs = modules
    if path.endswith("positions") and given.shape[-1] == leaf.shape[-1]:
        # Adapters' positions are stacked over K, feature heads' have a class token in front.
        resize = partial(_resized, old=tuple(theirs.grid), new=tuple(ours.grid), count=leaf.shape[-2])
        value = _first(given, leaf.shape[:-2]) if leaf.ndim > 2 else given
        return resize(value), "resized"
    if ours.num_codebooks != theirs.num_codebooks and _grows(leaf.shape, given.shape, modules):
        return _first(given, leaf.shape), "partly"
    return None, "fresh"


def _grows(ours: tuple[int, ...], theirs: tuple[int, ...], modules: tuple[nn.Module, nn.Module]) -> bool:
    """Whether sizes differ in proportion to K alone."""
    K, other = (module.num_codebooks for module in modules)
    return all(a == b or a * other == b * K for a, b in zip(ours, theirs, strict=True))


def _first(values: Any, shape: tuple[int, ...]) -> Any:
    return values[tuple(slice(size) for size in shape)]


def _resized(positions: Any, *, old: tuple[int, int], new: tuple[int, int], count: int) -> Array:
    """Positions [..., T, D] for another grid; tokens before those of the grid stay."""
    positions, extra = jnp.asarray(positions), count - new[0] * new[1]
    resize = partial(resize_positions, learned=old, grid=new)
    for _ in range(positions.ndim - 2):
        resize = jax.vmap(resize)
    return jnp.concatenate([positions[..., :extra, :], resize(positions[..., extra:, :])], axis=-2)


def _written(leaf: Array, value: Any) -> Array:
    """Our parameter with a value in the place of its first numbers along each axis."""

    def write(leaf: Array, value: Array) -> Array:
        return leaf.at[tuple(map(slice, value.shape))].set(value.astype(leaf.dtype))

    return jax.jit(write, out_shardings=leaf.sharding)(leaf, np.asarray(value))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Started:
    """What a run was started from.

    Attributes:
      path: `train.init_from`.
      fingerprint: of the model there.
      fits: how each network was fitted.
    """

    path: str
    fingerprint: str
    fits: Mapping[str, Fit]

    def report(self) -> str:
        """Returns a line for each network."""
        return "\n".join(f"Started the {name} from {self.path}: {fit.sentence()}." for name, fit in self.fits.items())

    def record(self, workdir: Path) -> None:
        """Writes all of it into the work folder."""
        write_atomically(workdir / RECORD, json.dumps(dataclasses.asdict(self), indent=2))


def warm_start(
    state: TrainState, path: str, parts: tuple[nn.Module, tuple[nn.Module, Size] | None], *, workdir: Path
) -> tuple[TrainState, Started]:
    """Returns the state of the first step with another model's weights, and what was taken.

    Without a moving average of its own a run starts from the other's, which is better than what it averages.

    Args:
      state: initialized.
      path: where the weights are.
      parts: the run's module, and its discriminator with the side of its images.
      workdir: of the run.

    Raises:
      UserError: no model there, most of a network would begin anew, or a run that was begun from other weights.
    """
    module, discriminator = parts
    start = load_start(path, model_kind(module))
    _check_same(workdir, path, start)
    fit = partial(fitted, modules=(module, start.module))
    with_average = state.ema is not None and start.trained is not None
    params, found = fit(state.params, start.trained if with_average else start.params)
    fits = {model_kind(module): found}
    ema = None if state.ema is None else fit(state.ema, start.params)[0]
    adversary = state.adversary
    given = None if discriminator is None else start.discriminator(*discriminator)
    if adversary is not None and given is not None:
        network, fits["discriminator"] = fit(adversary.params, given)
        adversary = dataclasses.replace(adversary, params=network)
    state = dataclasses.replace(state, params=params, ema=ema, adversary=adversary)
    return state, Started(path=path, fingerprint=start.fingerprint, fits=fits)


def _check_same(workdir: Path, path: str, start: Start) -> None:
    """Raises `UserError` if the run was begun before, from other weights under the same name."""
    file = workdir / RECORD
    if file.exists() and read_json(file, remedy="restore it").get("fingerprint") != start.fingerprint:
        raise UserError(
            f"{path} holds other weights than when the run in {workdir} began: name those, or begin anew in another "
            "--workdir."
        )
