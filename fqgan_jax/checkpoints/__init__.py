"""Reads trained models: their parameters, their description, and whether files are damaged."""

from fqgan_jax.checkpoints.checksums import find_damage, write_checksums
from fqgan_jax.checkpoints.description import (
    ModelDescription,
    fingerprint,
    is_export_folder,
    read_description,
    read_export,
    write_description,
    write_export,
)
from fqgan_jax.checkpoints.layout import FOLDER, CheckpointName, Item, damaged_folders, saved_steps
from fqgan_jax.checkpoints.mirror import Mirror
from fqgan_jax.checkpoints.reading import (
    checkpoint_step,
    has_item,
    load_discriminator_params,
    load_inference_params,
    load_params_and_average,
    read_item,
    score_function,
)

__all__ = [
    "FOLDER",
    "CheckpointName",
    "Item",
    "Mirror",
    "ModelDescription",
    "checkpoint_step",
    "damaged_folders",
    "find_damage",
    "fingerprint",
    "has_item",
    "is_export_folder",
    "load_discriminator_params",
    "load_inference_params",
    "load_params_and_average",
    "read_description",
    "read_export",
    "read_item",
    "saved_steps",
    "score_function",
    "write_checksums",
    "write_description",
    "write_export",
]
