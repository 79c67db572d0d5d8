"""Runs whose work folders and caches are in object storage: the same numbers, whatever fails in between."""

import jax
import numpy as np
import pytest
from support.object_storage import FaultyProxy, environment, upload
from support.tiny_configs import tiny_generator_config

from fqgan_jax.checkpoints import FOLDER, saved_steps
from fqgan_jax.errors import UserError
from fqgan_jax.storage import as_path, paths
from fqgan_jax.training import train
from fqgan_jax.training.checkpointing import Checkpoints
from fqgan_jax.training.logging import RunLog, read_log

SERVERS = {"s3": ("s3_url", "AWS_ENDPOINT_URL"), "gs": ("gcs_url", "STORAGE_EMULATOR_HOST")}


def config_of(codes, *overrides):
    fields = (f"data.codes={codes}", "train.log_every=1", "train.checkpoint_every=1", "train.keep_checkpoints=2")
    return tiny_generator_config(*fields, *overrides)


def without_speed(lines) -> list[dict]:
    return [{name: value for name, value in line.items() if "per_second" not in name} for line in lines]


def assert_same(first, second) -> None:
    numbers = (jax.device_get((state.params, state.opt_state)) for state in (first, second))
    jax.tree.map(np.testing.assert_array_equal, *numbers)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("protocol", SERVERS)
def test_a_stopped_run_with_one_request_in_twenty_failing_gives_the_same_numbers(
    protocol, code_cache, tmp_path, request, monkeypatch
):
    monkeypatch.setattr(paths, "PAUSES", (0.05,) * 6)
    server, variable = SERVERS[protocol]
    bucket = as_path(request.getfixturevalue(protocol))
    codes, workdir = upload(code_cache, f"{bucket}/codes"), bucket / "run"
    expected = train(config_of(code_cache), tmp_path / "run")
    with FaultyProxy(request.getfixturevalue(server), every=20) as proxy, environment(**{variable: proxy.url}):
        train(config_of(codes), workdir, stop_after=2)
        assert saved_steps(workdir / FOLDER) == [2, 1]
        found = train(config_of(codes), workdir)
        assert saved_steps(workdir / FOLDER) == [4, 3]
    assert sum(proxy.faults.values()) >= 5, proxy.faults
    print(f"{sum(proxy.faults.values())} of {proxy.count} requests failed: {dict(proxy.faults)}")
    assert_same(found, expected)
    assert without_speed(read_log(workdir)) == without_speed(read_log(tmp_path / "run"))
    kept = {path.relative_to(workdir).parts[0] for path in workdir.files()}
    assert {"config.json", "model.json", "metrics.jsonl", "checkpoints", "tensorboard"} <= kept
    assert ".lock" not in kept


@pytest.mark.long
@pytest.mark.slow
def test_damaged_and_unfinished_checkpoints(s3, code_cache, tmp_path, caplog):
    workdir = as_path(s3) / "run"
    expected = train(config_of(code_cache), tmp_path / "run")
    train(config_of(code_cache), workdir, stop_after=3)
    [damaged, *_] = [path for path in (workdir / FOLDER / "3" / "params").files() if path.stat().st_size > 1000]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    (workdir / FOLDER / "7" / "params" / "part").write_text("its checksums were never written")
    found = train(config_of(code_cache), workdir)
    assert "The checkpoint of step 3 is damaged" in caplog.text
    assert_same(found, expected)
    names = {path.name for path in (workdir / FOLDER).iterdir()}
    assert names == {"damaged_3", "3", "4"}


def test_an_outage_during_a_save_is_a_sentence(s3, s3_url, code_cache, monkeypatch):
    monkeypatch.setattr(paths, "PAUSES", (0.01,))
    workdir = as_path(s3) / "run"
    log = RunLog(workdir, 0)
    log.scalars(1, {"loss": 1.0})
    log.close()
    refused = FaultyProxy(s3_url, every=1, kinds=("403",))
    with refused as proxy, environment(AWS_ENDPOINT_URL=proxy.url):
        with pytest.raises(UserError, match=r"metrics.jsonl cannot be used"):
            RunLog(workdir, 1)
        with pytest.raises(UserError, match="cannot be used"):
            Checkpoints(workdir, keep=1)
    assert [line["loss"] for line in read_log(workdir)] == [1.0]


def test_the_log_of_a_resumed_run_drops_later_lines_and_keeps_earlier_ones(bucket_folder):
    workdir = as_path(bucket_folder) / "run"
    log = RunLog(workdir, 0)
    for step in range(1, 6):
        log.scalars(step, {"loss": float(step)})
    log._lines.close()  # as after a kill: TensorBoard's file is not uploaded
    log = RunLog(workdir, 3)
    log.scalars(4, {"loss": 40.0})
    log.pictures(4, {"noise": np.zeros((8, 8, 3), np.uint8)})
    log.close()
    assert [line["loss"] for line in read_log(workdir)] == [1.0, 2.0, 3.0, 40.0]
    assert (workdir / "pictures" / "noise.png").read_bytes()[:4] == b"\x89PNG"
    assert len(list((workdir / "tensorboard").iterdir())) == 1
