"""The ablation's table holds what its runs logged; runs that are done are not trained again."""

import csv
import statistics

import pytest
from conftest import TINY_TOKENIZER

from fqgan_jax.cli.main import main
from fqgan_jax.training.logging import read_log


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
    assert main(command) == 0
    table = (tmp_path / "runs" / "table.md").read_text()
    assert table in capsys.readouterr().out
    (row,) = csv.DictReader((tmp_path / "runs" / "table.csv").read_text().splitlines())
    assert (row["run"], row["K"], row["N"], row["bits per position"]) == ("K=2", "2", "32", "10")
    logs = [read_log(tmp_path / "runs" / "K=2" / f"seed_{seed}") for seed in (0, 1)]
    values = [log[-1]["validation/psnr"] for log in logs]
    assert row["psnr"] == f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"
    usage = [min(log[-1][f"validation/usage/{k}"] for k in (0, 1)) for log in logs]
    assert row["usage"] == f"{statistics.mean(usage):.3f} ± {statistics.stdev(usage):.3f}"

    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/*/checkpoints/*")}
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/*/checkpoints/*")} == written
