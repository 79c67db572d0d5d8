"""Sweeps over sampling options: their values, their file, and what the commands make of them."""

import json

import pytest
from support import stand_in_features

from fqgan_jax.cli.main import main
from fqgan_jax.errors import UserError
from fqgan_jax.evaluation import networks as evaluation_networks
from fqgan_jax.evaluation.protocol import Evaluation
from fqgan_jax.evaluation.sweep import grid, parse_sweep, run_sweep, sweep_table
from fqgan_jax.pictures.sweep import save_sweep_plot


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("guidance=1:4:0.5", ("guidance", [1, 1.5, 2, 2.5, 3, 3.5, 4])),
        ("temperature=0.8:1.0:0.1", ("temperature", [0.8, 0.9, 1.0])),
        ("top-k=0,100,16384", ("top_k", [0, 100, 16384])),
        ("top_p=0.9", ("top_p", [0.9])),
    ],
)
def test_values(text, expected):
    assert parse_sweep(text) == expected


@pytest.mark.parametrize(
    "text", ["guidanc=1", "guidance", "guidance=a", "guidance=1:2", "guidance=3:1:1", "guidance=1:2:0"]
)
def test_other_texts_are_explained(text):
    with pytest.raises(UserError, match="--sweep"):
        parse_sweep(text)


def evaluated(options, *, seed=0):
    results = {"gfid": 10 - options["guidance"], "inception_score": options["guidance"] * options["temperature"]}
    return Evaluation(
        results=results, missing={}, protocol={"seed": seed, "sampling": dict(options) | {"top_p": [1.0]}}
    )


def test_a_sweep_goes_on_where_it_stopped(tmp_path):
    file, calls = tmp_path / "sweep.json", []

    def measure(options):
        if len(calls) == 2:
            raise ZeroDivisionError
        calls.append(options)
        return evaluated(options)

    wanted = grid([("guidance", [1.0, 2.0]), ("temperature", [0.9, 1.1])])
    assert len(wanted) == 4
    with pytest.raises(ZeroDivisionError):
        list(run_sweep(wanted, measure, file))
    points = list(run_sweep(wanted, lambda options: calls.append(options) or evaluated(options), file))
    assert calls == wanted
    assert [point.results["gfid"] for point in points] == [9, 9, 8, 8]
    assert json.loads(file.read_text())["protocol"] == {"seed": 0, "sampling": {"top_p": [1.0]}}
    lines = sweep_table(points).splitlines()
    assert lines[0].split() == ["guidance", "temperature", "gfid", "inception_score"]
    assert lines[4].split() == ["2", "1.1", "8", "2.2"]
    assert save_sweep_plot(points, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 1000
    with pytest.raises(UserError, match="another generator"):
        list(run_sweep(grid([("guidance", [7.0]), ("temperature", [1.0])]), lambda o: evaluated(o, seed=1), file))


@pytest.mark.slow
def test_commands(trained_generator, trained_tokenizer, image_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluation_networks, "load_networks", lambda **_: stand_in_features.networks())
    models = ["--checkpoint", str(trained_generator), "--tokenizer", str(trained_tokenizer)]
    command = ["evaluate", *models, "--count", "4", "--reference", str(image_folder), "--temperature", "0.5"]
    out = tmp_path / "sweep.json"
    assert main([*command, "--sweep", "guidance=1:2:1", "--out", str(out)]) == 0
    content = json.loads(out.read_text())
    assert [point["options"] for point in content["points"]] == [{"guidance": 1.0}, {"guidance": 2.0}]
    assert content["protocol"]["sampling"]["temperature"] == [0.5]
    assert out.with_suffix(".png").exists()
    single = tmp_path / "single.json"
    assert main([*command, "--guidance", "2", "--out", str(single)]) == 0
    assert json.loads(single.read_text())["results"] == content["points"][1]["results"]

    picture = tmp_path / "grid.png"
    assert main(["sample", *models, "--sweep", "guidance=1:3:1", "--sweep", "top_p=0.5,1", "--out", str(picture)]) == 0
    assert "6 rows of 2 samples" in capsys.readouterr().out
    assert main(["sample", *models, "--sweep", "guidance=1", "--out", str(tmp_path / "folder")]) == 2
    assert main(["evaluate", "--data", str(image_folder), "--sweep", "guidance=1"]) == 2
