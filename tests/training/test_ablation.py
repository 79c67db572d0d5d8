"""The ablation's table holds what its runs logged; runs that are done are not trained again."""

import csv
import itertools
import math
import statistics
from pathlib import Path

import pytest
from ml_collections import ConfigDict
from PIL import Image
from support.tiny_configs import TINY_GENERATOR, TINY_TOKENIZER

from fqgan_jax.cli.main import main
from fqgan_jax.config import load_config
from fqgan_jax.errors import UserError
from fqgan_jax.training.ablation import plan_runs, run_ablation
from fqgan_jax.training.from_config import tokenizer_fields
from fqgan_jax.training.logging import read_log

PREDICTIONS = ("transformer", "parallel")


@pytest.fixture
def config_file(tmp_path):
    overrides = [f"--config.{field}" for field in TINY_TOKENIZER]
    path = tmp_path / "ablation.py"
    path.write_text(
        "from ml_collections import ConfigDict\n\n\ndef get_config(arguments=''):\n"
        f"    runs = {{'K=2': ('configs/demo_tokenizer.py', *{overrides!r})}}\n"
        "    return ConfigDict({'runs': runs, 'seeds': (0, 1)})\n"
    )
    return path


@pytest.mark.slow
def test_table(config_file, tmp_path, capsys):
    command = ["ablate", "--config", str(config_file), "--workdir", str(tmp_path / "runs")]
    assert main([*command, "--only-run", "1"]) == 0
    assert not (tmp_path / "runs" / "K=2" / "seed_0").exists()
    assert main(command) == 0
    table = (tmp_path / "runs" / "table.md").read_text()
    assert table in capsys.readouterr().out
    (row,) = csv.DictReader((tmp_path / "runs" / "table.csv").read_text().splitlines())
    assert (row["run"], row["K"], row["N"], row["bits per position"]) == ("K=2", "2", "32", "10")
    logs = [read_log(tmp_path / "runs" / "K=2" / f"seed_{seed}") for seed in (0, 1)]
    values = [log[-1]["validation/psnr"] for log in logs]
    assert row["PSNR (dB)"] == f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"
    usage = [min(log[-1][f"validation/usage/{k}"] for k in (0, 1)) for log in logs]
    assert row["usage"] == f"{statistics.mean(usage):.4f} ± {statistics.stdev(usage):.4f}"
    rates = [statistics.median(line["images_per_second"] / 8 for line in log if "loss" in line) for log in logs]
    hours = statistics.mean(4 * 8 / rate / 3600 for rate in rates)
    assert float(row["chip-hours"].split()[0]) == pytest.approx(hours, rel=0.01)
    assert Image.open(tmp_path / "runs" / "plot.png").size[0] > 500

    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/*/checkpoints/*")}
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/*/checkpoints/*")} == written


@pytest.mark.slow
def test_table_of_generators(code_cache, tmp_path):
    fields = [f"--config.{field}" for field in (*TINY_GENERATOR, f"data.codes={code_cache}")]
    runs = {name: ("configs/demo_generator.py", *fields, f"--config.model.prediction={name}") for name in PREDICTIONS}
    run_ablation(ConfigDict({"runs": runs, "seeds": (0,)}), tmp_path)
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [row["run"] for row in rows] == sorted(PREDICTIONS)
    for row in rows:
        last = read_log(tmp_path / row["run"] / "seed_0")[-1]
        assert float(row["held-out loss (nats)"]) == pytest.approx(last["validation/next_code"], rel=1e-3)
        assert float(row["loss of sub-codebook 1"]) == pytest.approx(last["validation/next_code/1"], rel=1e-3)
        assert 0 < float(row["seconds a sample"]) < 60
    assert Image.open(tmp_path / "curves.png").size[0] > 500
    assert not (tmp_path / "plot.png").exists()


def test_grid():
    """Every combination once, in a run that differs in just these fields."""
    runs = plan_runs(load_config("configs/ablation_codebooks.py:k=1-3,n=16-64,factorization=adapters-split"), Path("x"))
    found = {
        (
            run.config.model.num_codebooks,
            run.config.model.codebook_size,
            run.config.model.factorization,
            run.config.seed,
        )
        for run in runs
    }
    assert found == set(itertools.product((1, 3), (16, 64), ("adapters", "split"), (0, 1)))
    assert len(runs) == len({run.workdir for run in runs}) == 16
    for run in runs:
        tokenizer_fields(run.config)  # raises where sizes do not fit


def test_published_grid_compares_what_it_says():
    runs = plan_runs(load_config("configs/ablation_tiny_imagenet.py"), Path("x"))
    bits = {
        run.variant: run.config.model.num_codebooks * math.log2(run.config.model.codebook_size)
        for run in runs
        if run.variant.startswith("equal bits")
    }
    assert len(bits) == 5
    assert all(12 <= value < 13 for value in bits.values())
    assert {run.config.model.codebook_size for run in runs if run.variant.startswith("equal N")} == {256}


def test_unequal_budgets_are_refused(config_file, tmp_path):
    config = load_config(str(config_file))
    with config.unlocked():
        config.runs["longer"] = (*config.runs["K=2"], "--config.train.steps=5")
    with pytest.raises(UserError, match="different numbers of images"):
        run_ablation(config, tmp_path / "runs")


def test_a_run_that_does_not_exist(config_file, tmp_path):
    with pytest.raises(UserError, match="no run 2: the ablation has runs 0 to 1"):
        run_ablation(load_config(str(config_file)), tmp_path / "runs", only_run=2)
