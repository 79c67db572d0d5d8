"""`fqgan check` on 8 devices, on one and on two processes; what is broken on purpose is named."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from support.environment import FLAGS
from support.process_groups import WHO, launch, wait

from fqgan_jax.check.numbers import STORED, deviation, summary
from fqgan_jax.check.parts import parts
from fqgan_jax.check.subjects import noise
from fqgan_jax.cli.main import main
from fqgan_jax.sharding import rules

CHECK = ("-m", "fqgan_jax.cli.main", "check")


def results(file: Path) -> dict[str, dict]:
    return {part["part"]: part for part in json.loads(file.read_text())["parts"]}


def skipped(found: dict[str, dict]) -> set[str]:
    return {name for name, part in found.items() if part["skipped"]}


@pytest.mark.slow
def test_everything_holds_on_eight_devices(tmp_path, capsys):
    assert main(["check", "--json", str(tmp_path / "out.json")]) == 0
    found = results(tmp_path / "out.json")
    assert list(found) == list(parts)
    assert skipped(found) == {"attention, cuDNN"}
    assert all(part["holds"] for part in found.values())
    printed = capsys.readouterr().out
    assert "8 x cpu" in printed
    assert f"jax {jax.__version__}" in printed
    assert "--xla_force_host_platform_device_count=8" in printed
    assert f"{len(parts) - 1} parts hold." in printed


def only(*names: str) -> list[str]:
    return [word for name in names for word in ("--only", name)]


@pytest.mark.slow
def test_on_one_device_split_steps_are_skipped(tmp_path):
    environment = os.environ | {"XLA_FLAGS": FLAGS.replace("device_count=8", "device_count=1")}
    chosen = ("decode", "generator's step", "generator's step, tensor", "saved and restored state")
    command = [sys.executable, *CHECK, *only(*chosen), "--json", str(tmp_path / "out.json")]
    subprocess.run(command, env=environment, check=True)
    found = results(tmp_path / "out.json")
    assert list(found) == list(chosen)
    assert all(part["holds"] for part in found.values())
    assert skipped(found) == {"generator's step, tensor"}


@pytest.mark.slow
def test_two_processes_take_part_and_the_first_prints(tmp_path):
    parts_of_all = only("decode", "generator's step, tensor", "saved and restored state")
    command = [*CHECK, *parts_of_all, "--folder", str(tmp_path), "--json", str(tmp_path / "out.json"), *WHO]
    (first, output), (second, other_output) = wait(launch(2, command, tmp_path), tmp_path)
    assert (first, second) == (0, 0), output + other_output
    assert "8 x cpu (cpu), 2 processes" in output
    assert "3 parts hold." in output
    assert "hold" not in other_output  # what libraries print aside, only the first process prints
    assert not any(part["skipped"] for part in results(tmp_path / "out.json").values())
    assert not list(tmp_path.glob("fqgan_check_*"))


def assert_only_this_fails(part: str, why: str, capsys, *flags: str):
    """Runs the part beside one that holds."""
    with pytest.raises(SystemExit) as stopped:
        main(["check", *only("quantize", part), *flags])
    assert stopped.value.code == 1
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if "DOES NOT HOLD" in line]
    assert line.startswith(part)
    assert why in line
    assert f"1 parts hold; these do not: {part}." in printed


def test_a_broken_kernel_is_named(monkeypatch, capsys):
    attention = jax.nn.dot_product_attention

    def not_causal(*inputs, is_causal=False, **options):
        return attention(*inputs, is_causal=False, **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", not_causal)
    assert_only_this_fails("attention, plain", "causal", capsys)


def test_a_broken_sharding_rule_is_named(monkeypatch, capsys):
    (down,) = (rule for rule in rules.RULES if rule.pattern == r"blocks/down/kernel")
    turned = dataclasses.replace(down, axes=(None, "tensor"))
    monkeypatch.setattr(rules, "RULES", tuple(turned if rule is down else rule for rule in rules.RULES))
    assert_only_this_fails("sharding rules", "generator", capsys)


def test_a_rule_that_fits_no_parameter_is_named(monkeypatch, capsys):
    (outputs,) = (rule for rule in rules.RULES if rule.pattern == "outputs")
    typo = dataclasses.replace(outputs, pattern="output")
    monkeypatch.setattr(rules, "RULES", tuple(typo if rule is outputs else rule for rule in rules.RULES))
    assert_only_this_fails("generator's step, tensor", "match no parameter of the generator: 'output'", capsys)


def test_an_altered_number_is_named(tmp_path, capsys):
    content = json.loads(STORED.read_text())
    values = content["parts"]["sharding rules"]
    name = next(iter(values))
    values[name][-1][0] *= 1 + 1e-6
    (tmp_path / "numbers.json").write_text(json.dumps(content))
    assert_only_this_fails("sharding rules", name, capsys, "--numbers", str(tmp_path / "numbers.json"))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--numbers", "{tmp}/none.json"), "holds no numbers of fqgan check"),
        (("--only", "decod"), "--only is 'decod': there is no part of fqgan check 'decod'; did you mean 'decode'?"),
    ],
)
def test_bad_input_is_explained(flags, sentence, tmp_path, capsys):
    assert main(["check", *(flag.format(tmp=tmp_path) for flag in flags)]) == 2
    assert sentence in capsys.readouterr().err


def test_deviations_by_hand():
    expected = {"a": np.array([3.0, 4.0]), "zero": np.array(0.0)}
    assert deviation({"a": np.array([3.0, 4.5]), "zero": np.array(0.0)}, expected) == (0.1, "a")
    assert deviation({"a": np.array([3.0, 4.0]), "zero": np.array(0.2)}, expected) == (0.2, "zero")
    for wrong in ({"zero": 0.0}, {"a": np.zeros(3), "zero": 0.0}, {"a": expected["a"], "zero": 0.0, "more": 1.0}):
        assert deviation(wrong, expected)[0] == np.inf
    size, name = deviation({"a": np.array([np.nan, 4.0]), "zero": 1e9}, expected)
    assert np.isnan(size)
    assert name == "a"


def test_an_error_anywhere_moves_the_summary():
    x = noise("x", (50, 40))
    norm, *projections = summary(x)
    np.testing.assert_allclose(norm, np.sqrt((x.astype(float) ** 2).sum()))
    assert max(map(abs, projections)) < 5 * norm  # sums of random signs
    wrong = x.copy()
    wrong[7, 9] += 0.1
    np.testing.assert_allclose(np.abs(summary(wrong) - summary(x))[1:], 0.1, rtol=1e-5)
