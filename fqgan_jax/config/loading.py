"""Loading configs: a file, its arguments and overrides of its fields; and their JSON."""

import importlib.util
import json
import traceback
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from fqgan_jax.config.defaults import field_rules
from fqgan_jax.config.plugins import search_beside
from fqgan_jax.config.registry import missing_weights, nearest
from fqgan_jax.config.rules import Field, Number, Whole, check_fields, flat, shortened, with_tuples
from fqgan_jax.errors import UserError, check


def parse_arguments(arguments: str, **defaults: int | float | str | Field) -> dict[str, int | float | str]:
    """Parses the "k=3,f=16" after a config file's name.

    Args:
      arguments: the text after the colon; "" if there is none.
      **defaults: every argument of the config; its type is that of its default. A `Field` (`whole(2, 1, 64)`) says what
        else it may be.

    Raises:
      UserError: an argument that the config does not have, or a value that it cannot have.
    """
    rules = {name: value.rule for name, value in defaults.items() if isinstance(value, Field)}
    values = {name: value.default if isinstance(value, Field) else value for name, value in defaults.items()}
    for part in filter(None, arguments.split(",")):
        name, _, value = part.partition("=")
        check(name in values, f"This config has no argument {name!r}{nearest(name, values)}")
        try:
            values[name] = type(values[name])(value)
        except ValueError as error:
            kind = type(values[name]).__name__
            raise UserError(f"The config argument {name}={value!r} is not of type {kind}.") from error
    check_fields(values, rules, where="The config argument ")
    return values


def load_config(file: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Loads a config file, applies overrides and checks every value.

    The file may import modules from its own folder. The config has a weight for every row of its task's losses, also
    of those that a plugin or the config's own imports have added.

    Args:
      file: "configs/x.py" or, with arguments for its `get_config`, "configs/x.py:k=3". A path that does not exist is
        also looked for among the configs that come with the package.
      overrides: "--config.FIELD=VALUE" each.

    Raises:
      UserError: no such file, an unknown field (the message names the nearest one), or a value that the field cannot
        have.
    """
    path, _, arguments = file.partition(":")
    config = _execute(_locate(path), arguments)
    _add_missing_weights(config)
    values, command_line = flags.FlagValues(), ["fqgan", *overrides]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=command_line)
        values(command_line)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise _override_error(config, overrides, error) from error
    check_config(values.config)
    return values.config


def check_config(config: ConfigDict, *, where: str = "") -> None:
    """Raises `UserError` if a field is not what it may be; a field of a config without a task is anything.

    Args:
      config: the config.
      where: where it was read, for the message: "runs/x/config.json: ".
    """
    if "task" not in config:
        return
    values, rules = flat(config), field_rules(config.task)
    for section in sorted({path.rpartition(".")[0] for path in rules} & values.keys()):
        raise UserError(f"{where}{section} is {shortened(values[section])}: it must hold fields.")
    for path in values:  # fields that rows have added
        if path not in rules and path.startswith("loss."):
            rules[path] = Number()
        if path not in rules and path.startswith("evaluation."):
            rules[path] = Whole()
    check_fields(values, rules, where=where)


def _execute(file: Path, arguments: str) -> ConfigDict:
    """Executes a config file, each time anew, and returns its config."""
    check(file.suffix == ".py", f"{file} is no config file: its name must end in .py.")
    search_beside(file)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        check(hasattr(module, "get_config"), f"{file} is no config file: it defines no function get_config.")
        config = module.get_config(arguments)
    except UserError:
        raise
    except Exception as error:
        raise UserError(_failure(file, error)) from error
    check(isinstance(config, ConfigDict), f"get_config of {file} returns no ConfigDict, but {type(config).__name__}.")
    return config


def _failure(file: Path, error: Exception) -> str:
    """What a config file raised, and in which of its lines."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    line = lines[-1] if lines else getattr(error, "lineno", None)
    where = f"{file}, line {line}" if line else str(file)
    return f"{where}: {type(error).__name__}: {error}. Mend the config."


def _add_missing_weights(config: ConfigDict) -> None:
    sections = {name: value for name, value in config.items() if isinstance(value, ConfigDict)}
    for section, weights in missing_weights(config.get("task", ""), sections).items():
        if section not in sections:
            config[section] = ConfigDict()
        config[section].update(weights)


def _locate(path: str) -> Path:
    if Path(path).is_file():
        return Path(path)
    packaged = importlib.util.find_spec("fqgan_jax.configs")
    # In a clone the configs are beside the package, in an installed wheel inside it.
    folder = Path(packaged.origin).parent if packaged and packaged.origin else Path(__file__).parents[2] / "configs"
    if (folder / Path(path).name).is_file():
        return folder / Path(path).name
    shipped = ", ".join(sorted(f"configs/{file.name}" for file in folder.glob("*.py") if file.name != "__init__.py"))
    raise UserError(f"There is no config file {path}. These come with fqgan_jax: {shipped}.")


def _override_error(config: ConfigDict, overrides: Sequence[str], error: Exception) -> UserError:
    """Returns the error that explains which override is wrong, and why."""
    known = field_names(config)
    for override in overrides:
        name = override.partition("=")[0].removeprefix("--config.")
        if not override.startswith("--config."):
            return UserError(f"Unknown argument {override!r}: config fields are set by --config.FIELD=VALUE.")
        if name not in known:
            return UserError(
                f"The config has no field {name!r}{nearest(name, known)} The weight of a loss in a file of yours is a "
                "field once the file is named with --plugin FILE or imported in the config."
            )
    return UserError(f"A config field was given a value of the wrong type: {error}")


def field_names(config: ConfigDict) -> list[str]:
    """Returns the names of all fields, with dots between a section and its fields."""
    return list(flat(config))


def to_json(config: ConfigDict) -> str:
    """Returns the config as text that `from_json` reads."""
    return json.dumps(config.to_dict(), indent=2)


def from_json(text: str) -> ConfigDict:
    """Reads a config that `to_json` wrote; `with_defaults` adds the fields that its task has gained since then."""
    return ConfigDict(with_tuples(json.loads(text)))


def with_defaults(config: ConfigDict, defaults: ConfigDict) -> ConfigDict:
    """Returns the config with the values of `defaults`, and weights of 0, for the fields that it lacks."""
    completed = ConfigDict(_merged(defaults.to_dict(), config.to_dict()))
    _add_missing_weights(completed)
    return completed


def _merged(defaults: dict, values: dict) -> dict:
    merged = dict(defaults)
    for name, value in values.items():
        default = defaults.get(name)
        merged[name] = _merged(default, value) if isinstance(default, dict) and isinstance(value, dict) else value
    return merged
