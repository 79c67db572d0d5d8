"""Export folders: a model in the format of another framework, with a README that loads it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import PyTree

from fqgan_jax.api import Model, load_model
from fqgan_jax.checkpoints import (
    CheckpointName,
    Item,
    has_item,
    load_discriminator_params,
    load_params_and_average,
)
from fqgan_jax.errors import UserError, check
from fqgan_jax.export.formats import Export, formats
from fqgan_jax.export.readme import readme
from fqgan_jax.files import whole_folder
from fqgan_jax.hub import local_checkpoint
from fqgan_jax.interop import export_discriminator
from fqgan_jax.training.from_config import build_discriminator, image_size
from fqgan_jax.training.workdir import saved_config


def export_checkpoint(
    checkpoint: Path,
    format_name: str,
    out: Path,
    *,
    with_ema: bool = False,
    with_discriminator: bool = False,
    batch_size: int | None = None,
) -> list[str]:
    """Writes the folder `out` atomically.

    Args:
      checkpoint: whatever `api.load_model` takes.
      format_name: a row of `formats`.
      out: the folder, which must not exist.
      with_ema: write the trained parameters and their moving average as two sets; otherwise the moving average alone,
        or the trained parameters if the run keeps none. For formats with named sets.
      with_discriminator: write the discriminator too, as a set of its own. For formats with named sets.
      batch_size: images of each call, 1 by default. For formats that fix it.

    Returns:
      The names of the files in the folder.

    Raises:
      UserError: there is no model, the format does not support it or an option, an extra is not installed, or `out`
        exists.
    """
    checkpoint = local_checkpoint(checkpoint)
    _check_options(
        checkpoint, format_name, with_ema=with_ema, with_discriminator=with_discriminator, batch_size=batch_size
    )
    with whole_folder(out) as folder:
        model = load_model(checkpoint)
        _check_kind(model.kind, format_name)
        export = Export(
            model=model,
            sets=_parameter_sets(model, checkpoint, with_ema=with_ema),
            discriminator=_discriminator(checkpoint) if with_discriminator else None,
            batch_size=batch_size or 1,
        )
        formats[format_name].write(folder, export)
        text = readme(export, format_name, _which_weights(checkpoint, with_ema=with_ema))
        (folder / "README.md").write_text(text)
        return sorted(path.name for path in folder.iterdir())


def _check_options(
    checkpoint: Path, format_name: str, *, with_ema: bool, with_discriminator: bool, batch_size: int | None
) -> None:
    row = formats[format_name]
    check(
        batch_size is None or row.has_batch_size,
        f"--batch-size is for --format {_one_of('has_batch_size')}: {format_name} takes any number of images.",
    )
    for flag, wanted in (("--with-ema", with_ema), ("--with-discriminator", with_discriminator)):
        check(
            not wanted or row.has_named_sets,
            f"{flag} is for --format {_one_of('has_named_sets')}: {format_name} holds one set of parameters.",
        )
        check(
            not wanted or CheckpointName.parse(checkpoint).is_of_a_run,
            f"{checkpoint} is no work folder of `fqgan train`: {flag} needs one.",
        )


def _one_of(attribute: str) -> str:
    """The formats with this attribute."""
    return " or ".join(name for name, row in formats.items() if getattr(row, attribute))


def _check_kind(kind: str, format_name: str) -> None:
    if kind not in formats[format_name].readme:
        taken = " or ".join(formats[format_name].readme)
        others = ", ".join(name for name, row in formats.items() if kind in row.readme) or "none"
        raise UserError(f"--format {format_name} is for a {taken}, not for a {kind}, whose formats are: {others}.")


def _parameter_sets(model: Model, checkpoint: Path, *, with_ema: bool) -> dict[str, PyTree]:
    """The model's parameters by the names that published files give to their sets."""
    if not with_ema:
        return {"model": model.params}
    params, average = load_params_and_average(checkpoint)
    return {"model": params, "ema": average}


def _discriminator(checkpoint: Path) -> Mapping[str, np.ndarray]:
    """Published tensors of the discriminator of a run; UserError if it has none."""
    params = load_discriminator_params(checkpoint)
    config = saved_config(CheckpointName.parse(checkpoint).workdir)
    discriminator = build_discriminator(config)
    assert discriminator is not None
    return export_discriminator(params, discriminator, image_size(config.data))


def _which_weights(checkpoint: Path, *, with_ema: bool) -> str:
    if with_ema:
        return "The set `model` holds the parameters as they were trained, `ema` their moving average."
    if not CheckpointName.parse(checkpoint).is_of_a_run:
        return "These are the parameters of the checkpoint that was exported."
    if has_item(checkpoint, Item.EMA):
        return "These are the moving average of the parameters over training."
    return "These are the parameters as they were trained (no moving average was kept)."
