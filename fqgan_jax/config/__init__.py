"""Configs: their fields, loading them, and the tables of rows that they choose from.

A config file defines `get_config(arguments)` and starts from `tokenizer_defaults()` or `generator_defaults()`.
"""

from fqgan_jax.config.defaults import generator_defaults, task_defaults, tokenizer_defaults
from fqgan_jax.config.loading import (
    check_config,
    field_names,
    from_json,
    load_config,
    parse_arguments,
    to_json,
    with_defaults,
)
from fqgan_jax.config.registry import Registry
from fqgan_jax.config.rules import whole

__all__ = [
    "Registry",
    "check_config",
    "field_names",
    "from_json",
    "generator_defaults",
    "load_config",
    "parse_arguments",
    "task_defaults",
    "to_json",
    "tokenizer_defaults",
    "whole",
    "with_defaults",
]
