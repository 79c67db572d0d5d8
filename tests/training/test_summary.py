"""`fqgan runs`: real work folders, whole and damaged, running and done."""

import json
import shutil
from pathlib import Path

import pytest
from support.tiny_configs import tiny_generator_config

from fqgan_jax.checkpoints import ModelDescription
from fqgan_jax.cli.main import main
from fqgan_jax.files import lock_file, upload_folder
from fqgan_jax.storage import as_path
from fqgan_jax.training.summary import find_runs
from fqgan_jax.training.workdir import claim_workdir


@pytest.fixture
def runs(trained_tokenizer, tmp_path):
    """A folder with a trained tokenizer, a generator that has just begun a level deeper, and other things."""
    shutil.copytree(trained_tokenizer, tmp_path / "runs" / "b")
    generator = tmp_path / "runs" / "a" / "deep"
    config = tiny_generator_config()
    claim_workdir(config, generator, ModelDescription(kind="generator", fields={}))
    (generator / "checkpoints").mkdir()
    (tmp_path / "runs" / "codes").mkdir()
    (tmp_path / "runs" / "codes" / "config.json").write_text("{}")
    return tmp_path / "runs"


def table(capsys) -> list[dict[str, str]]:
    """The printed rows by their titles, by the places of the titles."""
    lines = capsys.readouterr().out.splitlines()
    titles = lines[0].split()
    places = [*map(lines[0].index, titles), None]
    return [
        {title: line[start:stop].strip() for title, start, stop in zip(titles, places, places[1:], strict=False)}
        for line in lines[1:]
    ]


def test_runs_are_found_and_described(runs, capsys):
    before = sorted(runs.rglob("*"))
    assert main(["runs", str(runs)]) == 0
    generator, tokenizer = table(capsys)
    assert generator["run"] == str(runs / "a" / "deep")
    assert (generator["task"], tokenizer["task"]) == ("generator", "tokenizer")
    assert (generator["step"], tokenizer["step"]) == ("0/4", "4/4")
    assert (generator["state"], generator["images/s"]) == ("stopped", "")
    assert tokenizer["state"] == "finished"
    logged = [json.loads(line) for line in (runs / "b" / "metrics.jsonl").read_text().splitlines()]
    newest = {name: value for line in logged for name, value in line.items()}
    assert float(tokenizer["images/s"]) == pytest.approx(newest["images_per_second"], rel=1e-3)
    assert float(tokenizer["psnr"]) == pytest.approx(newest["validation/psnr"], rel=1e-4)
    assert generator["psnr"] == ""
    assert not [title for title in tokenizer if title.startswith("usage/")]
    assert main(["runs", str(runs / "b"), "--metrics", "usage/0"]) == 0
    (row,) = table(capsys)
    assert float(row["usage/0"]) == pytest.approx(newest["validation/usage/0"], rel=1e-4)
    assert sorted(runs.rglob("*")) == before


def test_states(runs, capsys):
    tokenizer = runs / "b"
    with lock_file(tokenizer / ".lock", refusal=""):
        assert next(run for run in find_runs(tokenizer)).state == "running"
    config = json.loads((tokenizer / "config.json").read_text())
    config["train"]["steps"] = 9
    (tokenizer / "config.json").write_text(json.dumps(config))
    assert [run.state for run in find_runs(tokenizer)] == ["stopped"]
    for damaged in ("", "{", "[]", '{"task": "x", "train": 3}'):
        (tokenizer / "config.json").write_text(damaged)
        assert main(["runs", str(tokenizer)]) == 0
        assert table(capsys)[0]["state"] == "damaged"


def test_runs_in_a_bucket(runs, s3, capsys):
    upload_folder(runs / "b", as_path(s3) / "deep" / "b")
    assert main(["runs", s3]) == 0
    (row,) = table(capsys)
    assert (row["run"], row["step"], row["state"]) == (f"{s3}/deep/b", "4/4", "finished")
    with lock_file(as_path(s3) / "deep" / "b" / ".lock", refusal=""):
        assert [run.state for run in find_runs(as_path(s3))] == ["running"]
    assert main(["runs", f"{s3}/none"]) == 2
    assert "There is no folder" in capsys.readouterr().err


def test_where_there_are_none(tmp_path, capsys):
    for folder, sentence in ((tmp_path, "holds no work folder"), (tmp_path / "none", "There is no folder")):
        assert main(["runs", str(folder)]) == 2
        assert sentence in capsys.readouterr().err
    assert list(find_runs(Path(tmp_path))) == []
