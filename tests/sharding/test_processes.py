"""Real processes that share eight virtual devices: the same numbers as one process; they start and stop together."""

import json
import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from support.process_groups import WHO, free_port, launch, wait
from support.processes_script import batches
from support.tiny_configs import TINY_TOKENIZER, tiny_tokenizer_config

from fqgan_jax.checkpoints import FOLDER, saved_steps
from fqgan_jax.cli.main import main
from fqgan_jax.errors import UserError
from fqgan_jax.sharding import processes
from fqgan_jax.storage import as_path
from fqgan_jax.training.logging import read_log
from fqgan_jax.training.loop import train

RATES = {"images_per_second", "images_per_second_per_chip"}
# Adam makes of a gradient near zero, which is rounding alone, a whole step: small steps keep losses comparable.
FIELDS = ("data.batch_size=16", "train.log_every=1", "optimizer.learning_rate=2e-5", "teachers=(None,None)")
MESHES = {"data": (), "fsdp": ("mesh.fsdp=4",), "tensor": ("mesh.tensor=2", "mesh.fsdp=2")}


def work(count: int, jobs: list[dict], folder: Path) -> None:
    """Has `count` processes do the jobs of `processes_script.py` in a folder."""
    (folder / "jobs.json").write_text(json.dumps([job | {"config": job["config"].to_dict()} for job in jobs]))
    script = str(Path(__file__).parents[1] / "support" / "processes_script.py")
    for code, output in wait(launch(count, [script, "{address}", "{count}", "{index}", str(folder)], folder), folder):
        assert code == 0, output


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The log of one process with eight devices."""
    folder = tmp_path_factory.mktemp("reference")
    train(tiny_tokenizer_config(*FIELDS), folder)
    return read_log(folder)


def assert_same_losses(log: list[dict], reference: list[dict]):
    assert [line["step"] for line in log] == [line["step"] for line in reference]
    for ours, theirs in zip(log, reference, strict=True):
        names = sorted(ours.keys() - RATES)
        assert names == sorted(theirs.keys() - RATES)
        np.testing.assert_allclose([ours[name] for name in names], [theirs[name] for name in names], 1e-5, 1e-6)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Work folders of two processes: one for each mesh, and "two", which stopped after two steps."""
    folder = tmp_path_factory.mktemp("two_processes")
    jobs = [{"name": mesh, "config": tiny_tokenizer_config(*FIELDS, *fields)} for mesh, fields in MESHES.items()]
    work(2, [*jobs, {"name": "two", "config": tiny_tokenizer_config(*FIELDS), "stop_after": 2}], folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_two_processes_train_like_one_on_every_mesh(mesh, two_processes, reference):
    assert_same_losses(read_log(two_processes / mesh), reference)


@pytest.mark.slow
def test_a_run_continues_on_another_number_of_processes_and_another_mesh(two_processes, reference, tmp_path):
    config = tiny_tokenizer_config(*FIELDS)
    for name in ("two", "four"):
        shutil.copytree(two_processes / "two", tmp_path / name)
        assert [line["step"] for line in read_log(tmp_path / name)] == [1, 2]
    train(config, tmp_path / "two")
    assert_same_losses(read_log(tmp_path / "two"), reference)
    work(4, [{"name": "four", "config": tiny_tokenizer_config(*FIELDS, *MESHES["tensor"])}], tmp_path)
    assert_same_losses(read_log(tmp_path / "four"), reference)


@pytest.mark.long
@pytest.mark.slow
def test_many_processes_train_in_a_bucket_like_one(s3, reference, tmp_path):
    """Two processes begin; two go on with one work folder, one process with a copy."""
    config, workdir, copy = tiny_tokenizer_config(*FIELDS, *MESHES["tensor"]), as_path(s3) / "run", as_path(s3) / "copy"
    half = {"name": "half", "config": config, "workdir": str(workdir), "stop_after": 2}
    work(2, [half], tmp_path)
    assert [line["step"] for line in read_log(workdir)] == [1, 2]
    for path in workdir.files():
        (copy / path.relative_to(workdir)).write_bytes(path.read_bytes())
    work(2, [half | {"stop_after": None}], tmp_path)
    train(config, copy)
    for folder in (workdir, copy):
        assert_same_losses(read_log(folder), reference)
        assert saved_steps(folder / FOLDER) == saved_steps(workdir / FOLDER) != []


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_many_processes_see_the_batches_of_one(count, tmp_path):
    config = tiny_tokenizer_config(*FIELDS)
    tensor = tiny_tokenizer_config(*FIELDS, "mesh.tensor=8", "mesh.data=-1")  # spans the processes
    jobs = [
        {"name": "whole", "config": config, "batches": [0, 4]},
        {"name": "resumed", "config": config, "batches": [2, 2]},
    ]
    jobs.append({"name": "tensor", "config": tensor, "batches": [0, 4]})
    work(count, jobs, tmp_path)
    whole = batches(config, 0, 4)
    assert whole["image"].shape == (4, 16, 16, 16, 3)
    for index in range(count):
        seen = {job["name"]: np.load(tmp_path / f"{job['name']}.{index}.npz") for job in jobs}
        for name in ("image", "label"):
            np.testing.assert_array_equal(seen["whole"][name], whole[name])
            np.testing.assert_array_equal(seen["tensor"][name], whole[name])
            np.testing.assert_array_equal(seen["resumed"][name], whole[name][2:])


TRAIN = ("-m", "fqgan_jax.cli.main", "train", "--config", "configs/demo_tokenizer.py:k=2")


def fields(*changes: str) -> list[str]:
    return [f"--config.{field}" for field in (*TINY_TOKENIZER, *FIELDS, *changes)]


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_the_same_step(tmp_path):
    workdir, endless = tmp_path / "run", fields("train.steps=100000", "train.checkpoint_every=100000")
    started = launch(2, [*TRAIN, *WHO, "--workdir", str(workdir), *endless], tmp_path)
    deadline = time.monotonic() + 600
    while not (workdir / "metrics.jsonl").is_file() or len(read_log(workdir)) < 3:
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in started), wait(started, tmp_path)
        time.sleep(0.2)
    started[1].send_signal(signal.SIGTERM)
    (first, output), (second, other_output) = wait(started, tmp_path)
    assert (first, second) == (143, 143), output + other_output
    step = max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())
    assert f"Stopped by signal at step {step}" in output
    assert step >= read_log(workdir)[-1]["step"] >= 3
    assert "Parameters" not in other_output  # prints and bars come from the first process
    assert "tokenizer:" not in other_output


@pytest.mark.slow
def test_an_error_of_one_process_is_its_sentence_and_ends_all(tmp_path):
    # Only the second process has another config than the work folder's.
    command = [*TRAIN, *WHO, "--workdir", str(tmp_path / "run{index}"), *fields("data.source={index}")]
    (tmp_path / "0").mkdir()
    (first, output), (second, other_output) = wait(launch(2, command, tmp_path), tmp_path)
    assert (first, second) == (2, 2)
    assert "fqgan train: " in output
    assert "fqgan train: " in other_output
    assert "Traceback" not in output + other_output


def check_all_present(count: int, present: list[int], timeout: float) -> list[str]:
    """What each process says after the check; "" if all are present."""
    address = f"localhost:{free_port()}"

    def take_part(index: int) -> str:
        try:
            processes._check_all_present(address, count, index, timeout)
        except UserError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor() as threads:
        return list(threads.map(take_part, present))


def test_processes_that_do_not_come_are_named_to_all_that_did():
    sentences = check_all_present(5, [0, 1, 3], 1.5)
    assert len(set(sentences)) == 1
    host = socket.gethostname()
    assert f"within 1.5 seconds: 2, 4 (there: 0 on {host}, 1 on {host}, 3 on {host})" in sentences[0]


def test_the_first_process_is_named_when_it_does_not_come():
    (sentence,) = check_all_present(2, [1], 0.5)
    assert sentence.startswith("Process 0 was not reached at localhost:")


def test_a_number_given_twice_is_named():
    assert all(
        sentence.startswith("Two processes have the number 1") for sentence in check_all_present(3, [0, 1, 1], 5)
    )


def test_all_that_come_go_on():
    assert check_all_present(3, [2, 1, 0], 20) == ["", "", ""]


def test_a_missing_process_ends_the_command_with_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(processes.start.__kwdefaults__, "timeout_seconds", 1)
    address = f"localhost:{free_port()}"
    command = ["train", "--config", "configs/demo_tokenizer.py", "--workdir", str(tmp_path / "run")]
    assert main([*command, "--coordinator", address, "--num-processes", "2", "--process-id", "0"]) == 2
    assert "did not come within 1 seconds: 1 " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"coordinator": "localhost:1234", "process_id": 0}, "--num-processes=None"),
        ({"coordinator": "localhost:1234", "num_processes": 2, "process_id": 2}, "--process-id=2"),
        ({"coordinator": "localhost", "num_processes": 2, "process_id": 0}, "--coordinator=localhost"),
        ({"num_processes": 2, "process_id": 0}, "--coordinator=None"),
    ],
)
def test_flags_that_are_not_whole_are_explained(flags, complaint):
    with pytest.raises(UserError, match=complaint):
        processes.start(**flags, timeout_seconds=1)


SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[3-4]", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
        (SLURM | {"SLURM_NTASKS": "2"}, ("node3:61447", 2, 1)),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
    ],
    ids=["nothing", "one task", "two tasks", "a pod"],
)
def test_only_an_environment_of_many_processes_starts_them(environment, expected, monkeypatch):
    called, initialized = [], []
    monkeypatch.setattr(processes, "_check_all_present", lambda *arguments: called.append(arguments[:3]))
    monkeypatch.setattr(jax.distributed, "initialize", lambda *arguments, **options: initialized.append(arguments[:3]))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    processes.start()
    assert called == initialized == ([expected] if expected else [])


@pytest.mark.slow
def test_evaluations_and_codes_of_many_processes_are_those_of_one(trained_tokenizer, image_folder, tmp_path):
    data = ["--checkpoint", str(trained_tokenizer), "--data", str(image_folder), "--batch-size", "8"]
    evaluate, tokenize = ["evaluate", *data, "--out"], ["tokenize", *data, "--out"]
    assert main([*evaluate, str(tmp_path / "one.json")]) == 0
    assert main([*tokenize, str(tmp_path / "one")]) == 0
    program = ["-m", "fqgan_jax.cli.main"]
    for command, out in ((evaluate, "two.json"), (tokenize, "two")):
        (first, output), (second, other_output) = wait(
            launch(2, [*program, *command, str(tmp_path / out), *WHO], tmp_path), tmp_path
        )
        assert (first, second) == (0, 0), output + other_output
        assert f"-> {tmp_path / out}" in output
        assert "->" not in other_output
    one, two = (json.loads((tmp_path / name).read_text())["results"] for name in ("one.json", "two.json"))
    assert one.keys() == two.keys()
    np.testing.assert_allclose([one[name] for name in one], [two[name] for name in one], 1e-5)
    # The codes lie in shards: each process writes its own, with the bytes that one process writes.
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / out).glob("*.array_record")} for out in ("one", "two")
    ]
    assert files[0]
    assert files[0] == files[1]
