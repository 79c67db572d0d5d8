"""Helps fit a screen, their examples and those of the documentation are commands, and shells complete them."""

import importlib
import math
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from fqgan_jax.cli.main import COMMANDS, main
from fqgan_jax.cli.main import _parse as parse
from fqgan_jax.config import load_config

LINES, COLUMNS = 50, 100
ROOT = Path(__file__).parents[2]


def commands_in(text: str) -> list[list[str]]:
    """The arguments of every line that starts with `fqgan`, possibly after variables."""
    joined = re.sub(r"\\\n\s*", "", text)
    words = [
        shlex.split(line, comments=True) for line in joined.splitlines() if re.match(r"\s*([A-Z_]+=\S+ )*fqgan ", line)
    ]
    return [line[line.index("fqgan") + 1 :] for line in words]


def assert_is_a_command(arguments: list[str]) -> None:
    """That the arguments are those of a command and change fields that there are, in a config that there is."""
    options = parse(arguments)
    config = getattr(options, "config", None) or ""
    if config.startswith("configs/") and not options.plugin and "..." not in arguments:
        load_config(options.config, options.overrides)


@pytest.mark.parametrize("command", ["", *COMMANDS, *(f"weights {action}" for action in ("list", "fetch", "verify"))])
def test_helps_fit_a_screen(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    with pytest.raises(SystemExit) as raised:
        main([*command.split(), "--help"])
    assert raised.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(max(1, math.ceil(len(line) / COLUMNS)) for line in lines) < LINES


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_are_commands(command):
    examples = commands_in(importlib.import_module(f"fqgan_jax.cli.{command}").EXAMPLES)
    assert command in {example[0] for example in examples}
    for example in examples:
        assert_is_a_command(example)


def test_version(capsys):
    with pytest.raises(SystemExit) as raised:
        main(["--version"])
    assert raised.value.code == 0
    assert capsys.readouterr().out.startswith(f"fqgan-jax {version('fqgan-jax')}, jax {version('jax')}")


def test_many_hosts_are_in_the_help_of_those_that_take_them(capsys):
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        takes_them = getattr(importlib.import_module(f"fqgan_jax.cli.{command}"), "MANY_PROCESSES", False)
        assert ("many hosts: --coordinator HOST:PORT" in capsys.readouterr().out) == takes_them


def test_shells_complete_commands_and_flags(tmp_path):
    pytest.importorskip("shtab")
    command = [sys.executable, "-m", "shtab", "--shell=bash", "fqgan_jax.cli.main.make_parser"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (tmp_path / "completion").write_text(done.stdout)
    asked = (
        f"source {tmp_path}/completion\nfunction=$(complete -p fqgan | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n"
        "COMP_WORDS=(fqgan rec); COMP_CWORD=1; $function; echo ${COMPREPLY[@]}\n"
        "COMP_WORDS=(fqgan sample --gui); COMP_CWORD=2; $function; echo ${COMPREPLY[@]}\n"
    )
    answers = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True, timeout=60)
    assert answers.stdout.split() == ["reconstruct", "--guidance", "--guidance-schedule"]
