"""Loads configs: a file, its arguments, overrides of its fields; and their JSON."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from fqgan_jax.config.plugins import search_beside
from fqgan_jax.config.registry import nearest
from fqgan_jax.errors import UserError


def parse_arguments(arguments: str, **defaults: int | float | str) -> dict[str, int | float | str]:
    """Reads the "k=3,f=16" behind a config file's name; types are those of the defaults.

    Raises:
      UserError: an argument the config does not have, or a value of the wrong type.
    """
    values = dict(defaults)
    for part in filter(None, arguments.split(",")):
        name, _, value = part.partition("=")
        if name not in defaults:
            raise UserError(f"This config has no argument {name!r}{nearest(name, defaults)}")
        try:
            values[name] = type(defaults[name])(value)
        except ValueError as error:
            kind = type(defaults[name]).__name__
            raise UserError(f"The config argument {name}={value!r} is not of type {kind}.") from error
    return values


def load_config(file: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Loads "configs/x.py:k=3" and applies `--config.field=value` overrides.

    A path that does not exist is also looked for among the configs that come with the package.

    Raises:
      UserError: no such file, an unknown field (the nearest one is named), a value of the wrong type.
    """
    path, _, arguments = file.partition(":")
    located = _locate(path)
    search_beside(located)
    spec = importlib.util.spec_from_file_location("config", located)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(arguments)
    values, command_line = flags.FlagValues(), ["fqgan", *overrides]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=command_line)
        values(command_line)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise _override_error(config, overrides, error) from error
    return values.config


def _locate(path: str) -> Path:
    if Path(path).is_file():
        return Path(path)
    packaged = importlib.util.find_spec("fqgan_jax.configs")
    # In a clone the configs lie beside the package, in an installed wheel inside it.
    folder = Path(packaged.origin).parent if packaged else Path(__file__).parents[2] / "configs"
    if (folder / Path(path).name).is_file():
        return folder / Path(path).name
    shipped = ", ".join(sorted(f"configs/{file.name}" for file in folder.glob("*.py") if file.name != "__init__.py"))
    raise UserError(f"There is no config file {path}. These come with fqgan_jax: {shipped}.")


def _override_error(config: ConfigDict, overrides: Sequence[str], error: Exception) -> UserError:
    """The sentence for a bad override."""
    known = field_names(config)
    for override in overrides:
        name = override.partition("=")[0].removeprefix("--config.")
        if not override.startswith("--config."):
            return UserError(f"Unknown argument {override!r}: config fields are set by --config.FIELD=VALUE.")
        if name not in known:
            return UserError(f"The config has no field {name!r}{nearest(name, known)}")
    return UserError(f"A config field was given a value of the wrong type: {error}")


def field_names(config: ConfigDict, prefix: str = "") -> list[str]:
    """All fields, dotted."""
    names = []
    for name, value in config.items():
        names += field_names(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else [prefix + name]
    return names


def to_json(config: ConfigDict) -> str:
    """The config as text that `from_json` reads."""
    return json.dumps(config.to_dict(), indent=2)


def from_json(text: str) -> ConfigDict:
    """Reads a config that `to_json` wrote; `with_defaults` adds the fields that its task has gained since then."""
    return ConfigDict(_with_tuples(json.loads(text)))


def _with_tuples(value: object) -> object:
    """JSON has lists only; in configs they are tuples."""
    if isinstance(value, dict):
        return {name: _with_tuples(item) for name, item in value.items()}
    return tuple(value) if isinstance(value, list) else value


def with_defaults(config: ConfigDict, defaults: ConfigDict) -> ConfigDict:
    """Returns the config, and the values of `defaults` for the fields that it lacks."""
    return ConfigDict(_merged(defaults.to_dict(), config.to_dict()))


def _merged(defaults: dict, values: dict) -> dict:
    merged = dict(defaults)
    for name, value in values.items():
        default = defaults.get(name)
        merged[name] = _merged(default, value) if isinstance(default, dict) and isinstance(value, dict) else value
    return merged
