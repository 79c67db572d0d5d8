"""launch/slurm.sbatch on a SLURM cluster of this one machine: started for the test, and ended with it."""

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import jax
import numpy as np
import pytest
from support.environment import PROCESS_FLAGS
from support.tiny_configs import TINY_TOKENIZER

from fqgan_jax.checkpoints import load_inference_params
from fqgan_jax.training.logging import read_log

pytestmark = [
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.skipif(
        not all(map(shutil.which, ("slurmctld", "slurmd", "munged", "sbatch"))) or os.getuid() != 0,
        reason="needs SLURM and munge (apt-get install slurm-wlm munge), and to be root",
    ),
]

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}
SlurmUser=root
SlurmctldPort={controller}
SlurmdPort={daemon}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=20
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
KillWait=60
NodeName={host} CPUs=8 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.socket()) for _ in range(count)]
        for server in servers:
            server.bind(("localhost", 0))
        return [server.getsockname()[1] for server in servers]


def wait_for(condition, seconds: float, what: str):
    """The condition's first value that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.5)
    raise TimeoutError(what)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Environment in which SLURM's commands reach a cluster of one node with eight processors."""
    folder = tmp_path_factory.mktemp("slurm")
    controller, daemon = free_ports(2)
    host = socket.gethostname().partition(".")[0]
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(host=host, controller=controller, daemon=daemon, folder=folder))
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    # A job's environment is its submitter's: a fqgan command, the package, the tests' caches and flags.
    (folder / "fqgan").write_text(f'#!/usr/bin/env bash\nexec "{sys.executable}" -m fqgan_jax.cli.main "$@"\n')
    (folder / "fqgan").chmod(0o755)
    environment = os.environ | {
        "SLURM_CONF": str(configuration),
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": f"{Path.cwd()}:{os.environ.get('PYTHONPATH', '')}",
        "XLA_FLAGS": PROCESS_FLAGS,
    }
    files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid"}
    files |= {"seed-file": "munge.seed", "log-file": "munge.log"}
    munged = ["munged", "--foreground", "--force", *(f"--{name}={folder / file}" for name, file in files.items())]
    commands = (munged, ["slurmctld", "-D", "-f", str(configuration)], ["slurmd", "-D", "-f", str(configuration)])
    started = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.out").open("w") as log:
                # In sessions of their own: SLURM signals the process groups of what it ends.
                options = {"env": environment, "stdout": log, "stderr": log, "start_new_session": True}
                started.append(subprocess.Popen(command, **options))
            time.sleep(1)

        def idle() -> bool:
            return "idle" in run(environment, "sinfo", "--noheader", "--format=%T", check=False)

        wait_for(idle, 60, "".join(path.read_text() for path in folder.glob("slurm*.out")))
        yield environment
    finally:
        run(environment, "scancel", "--full", "--signal=KILL", "--user=root", check=False)
        time.sleep(1)
        for process in reversed(started):
            process.terminate()
            process.wait(30)


def run(environment: dict[str, str], *command: str, check: bool = True) -> str:
    return subprocess.run(command, env=environment, check=check, capture_output=True, text=True).stdout


def submit(cluster: dict[str, str], folder: Path) -> str:
    """Submits launch/slurm.sbatch with two tasks; its job's number."""
    changes = ("data.batch_size=16", "train.steps=20", "train.log_every=1", "train.checkpoint_every=1000")
    fields = [f"--config.{field}" for field in (*TINY_TOKENIZER, *changes, "train.evaluate_every=20")]
    where = ("--parsable", "--ntasks-per-node=2", "--nodes=1", f"--output={folder}/job.log")
    line = ("--config", "configs/demo_tokenizer.py:k=2", "--workdir", str(folder / "run"), *fields)
    return run(cluster, "sbatch", *where, "launch/slurm.sbatch", *line).strip()


def state(cluster: dict[str, str], job: str, field: str) -> str:
    shown = run(cluster, "scontrol", "show", "job", job)
    return shown.partition(f"{field}=")[2].split()[0]


def finished(cluster: dict[str, str], job: str, folder: Path) -> None:
    def ended() -> bool:
        return state(cluster, job, "JobState") in ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT")

    wait_for(ended, 1800, f"job {job} is {state(cluster, job, 'JobState')}")
    assert state(cluster, job, "JobState") == "COMPLETED", (folder / "job.log").read_text()


def test_a_job_that_is_stopped_queues_again_and_ends_as_if_it_was_not(cluster, tmp_path):
    undisturbed, stopped = tmp_path / "undisturbed", tmp_path / "stopped"
    for folder in (undisturbed, stopped):
        folder.mkdir()
    finished(cluster, submit(cluster, undisturbed), undisturbed)

    job = submit(cluster, stopped)

    def logged() -> bool:
        return len(read_log(stopped / "run")) >= 3 or state(cluster, job, "JobState") == "FAILED"

    wait_for(logged, 900, "the first steps")
    run(cluster, "scancel", "--signal=TERM", job)  # as SLURM does before the time limit

    def again() -> bool:
        return state(cluster, job, "Restarts") == "1" or state(cluster, job, "JobState") == "FAILED"

    wait_for(again, 200, "the job to be queued again")
    step = max(int(path.name) for path in (stopped / "run" / "checkpoints").iterdir() if path.name.isdigit())
    assert 3 <= step < 20
    assert f"Stopped by signal at step {step}" in (stopped / "job.log").read_text()
    finished(cluster, job, stopped)

    def without_rate(log: list[dict]) -> list[dict]:
        return [{k: v for k, v in line.items() if not k.startswith("images_per_second")} for line in log]

    logs = [without_rate(read_log(folder / "run")) for folder in (undisturbed, stopped)]
    assert logs[0] == logs[1]
    (expected, last), (found, same) = (load_inference_params(folder / "run") for folder in (undisturbed, stopped))
    assert last == same == 20
    jax.tree.map(np.testing.assert_array_equal, expected, found)
    assert (stopped / "job.log").read_text().count("Parameters:") == 1  # one process prints, and only at the start
