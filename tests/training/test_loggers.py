"""Loggers, read back with the libraries' own readers; a run keeps its identity when it resumes."""

import json
import logging
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from support.tiny_configs import PLAIN, tiny_tokenizer_config

from fqgan_jax.errors import UserError
from fqgan_jax.training import train
from fqgan_jax.training.logging import RunLog, read_log

CONFIG = {"seed": 3, "train": {"steps": 4}}
PICTURE = np.full((4, 6, 3), 200, np.uint8)


def log_in_two_parts(workdir, logger):
    """Steps 1 to 3, then from step 2 on again, as after a kill."""
    for first, last in ((0, 3), (2, 4)):
        log = RunLog(workdir, first, loggers=(logger,), config=CONFIG)
        for step in range(first + 1, last + 1):
            log.scalars(step, {"loss": 1 / step, "usage/0": 0.5})
        log.pictures(last, {"reconstructions": PICTURE})
        log.close()


def test_tensorboard(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log_in_two_parts(tmp_path, "tensorboard")
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]


@pytest.mark.slow
def test_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)  # where pictures go
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    log_in_two_parts(tmp_path / "my_run", "mlflow")
    assert not logging.getLogger("fqgan_jax").disabled
    (run,) = mlflow.search_runs(output_format="list", search_all_experiments=True)
    assert json.loads((tmp_path / "my_run" / "loggers.json").read_text()) == {"mlflow": run.info.run_id}
    assert run.info.run_name == "my_run"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "3", "train.steps": "4"}
    assert run.data.metrics == {"loss": 0.25, "usage/0": 0.5}
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
    assert sorted({metric.step for metric in history}) == [1, 2, 3, 4]
    pictures = mlflow.artifacts.list_artifacts(run_id=run.info.run_id, artifact_path="images")
    assert any("reconstructions" in picture.path for picture in pictures)


def wandb_records(path):
    """The records in a file of W&B: LevelDB's log format (blocks of 32 KiB, a header of 7 bytes before each part)."""
    from wandb.proto import wandb_internal_pb2

    content, position, message = path.read_bytes(), 7, b""  # after W&B's own header
    while position + 7 <= len(content):
        left = 2**15 - position % 2**15
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        message += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # the whole of a record, or its last part
            yield wandb_internal_pb2.Record.FromString(message)
            message = b""


@pytest.mark.parametrize("project", ["", "mine"])
def test_wandb(project, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    wandb.teardown()  # it reads its variables once
    monkeypatch.setenv("WANDB_PROJECT", project)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    workdir = tmp_path / "my_run"
    log_in_two_parts(workdir, "wandb")
    (identity,) = json.loads((workdir / "loggers.json").read_text()).values()
    seen, names = [], set()
    for path in sorted(workdir.glob(f"wandb/offline-run-*-{identity}*/run-{identity}.wandb")):
        for record in wandb_records(path):
            if record.WhichOneof("record_type") == "run":
                names.add((record.run.display_name, record.run.project))
            items = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
            if "loss" in items:
                seen.append((int(items["step"]), float(items["loss"])))
    assert seen == [(step, pytest.approx(1 / step)) for step in (1, 2, 3, 3, 4)]
    assert names == {("my_run", project or "fqgan_jax")}
    assert list(workdir.rglob("pictures/reconstructions*.png"))


@pytest.mark.slow
def test_a_run_that_resumes_keeps_its_identity(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = tiny_tokenizer_config(*PLAIN, "train.logger=('tensorboard','wandb')")
    train(config, tmp_path / "run", stop_after=2)
    first = (tmp_path / "run" / "loggers.json").read_text()
    train(config, tmp_path / "run")
    assert (tmp_path / "run" / "loggers.json").read_text() == first
    identity = json.loads(first)["wandb"]
    files = sorted((tmp_path / "run" / "wandb").glob(f"offline-run-*-{identity}*/*.wandb"))
    logged = [
        int(item.value_json)
        for path in files
        for record in wandb_records(path)
        for item in record.history.item
        if "step" in (item.key, *item.nested_key)
    ]
    assert len(files) == 2
    assert set(logged) == {line["step"] for line in read_log(tmp_path / "run")}


@pytest.mark.parametrize("logger", ["wandb", "mlflow"])
def test_a_library_that_is_not_installed(logger, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, logger, None)
    config = tiny_tokenizer_config(*PLAIN, f"train.logger=('{logger}',)")
    with pytest.raises(UserError, match=rf"pip install fqgan-jax\[{logger}\]"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_logger_is_refused_before_the_work_folder_is_made(tmp_path):
    config = tiny_tokenizer_config(*PLAIN, "train.logger=('tensorbord',)")
    with pytest.raises(UserError, match=r"train.logger is 'tensorbord'.*did you mean 'tensorboard'"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_service_that_does_not_answer_is_a_sentence(tmp_path):
    pytest.importorskip("mlflow")
    script = (
        "import sys; from pathlib import Path; from fqgan_jax.errors import UserError\n"
        "from fqgan_jax.training.logging import RunLog\n"
        "try:\n  RunLog(Path(sys.argv[1]), 0, loggers=('mlflow',))\n"
        "except UserError as error:\n  print(error)"
    )
    variables = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | variables, timeout=120)
    assert "mlflow does not take the run" in done.stdout


def test_without_loggers_the_work_folder_has_the_numbers(tmp_path):
    log = RunLog(tmp_path, 0, loggers=())
    log.scalars(1, {"loss": 1.0})
    log.close()
    assert read_log(tmp_path) == [{"step": 1, "loss": 1.0}]
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl", "pictures"}
