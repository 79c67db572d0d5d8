"""The launch scripts: sound shell, whole JobSets, each starting a line that `fqgan` accepts."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fqgan_jax.cli.main import make_parser
from fqgan_jax.config import load_config

LAUNCH = Path("launch")
SHELL = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
JOBSETS = sorted(LAUNCH.glob("*.yaml"))


def test_shell_scripts_are_sound():
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not shellcheck:
        pytest.skip("shellcheck is not installed: pip install fqgan-jax[test]")
    assert len(SHELL) == 3
    subprocess.run([shellcheck, *SHELL], check=True)


@pytest.mark.parametrize("path", [*SHELL, *JOBSETS], ids=lambda path: path.name)
def test_the_opening_comment_says_how_to_use_it(path):
    lines = path.read_text().removeprefix("#!/usr/bin/env bash\n").splitlines()
    comment = "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    assert {".sbatch": "  sbatch ", ".sh": f"launch/{path.name}", ".yaml": "kubectl apply -f launch/"}[
        path.suffix
    ] in comment


def train_line(words: list[str]):
    """The line's options, and its config loaded."""
    assert words[0] == "fqgan"
    options, overrides = make_parser().parse_known_args(words[1:])
    return options, load_config(options.config, overrides)


@pytest.mark.parametrize("path", JOBSETS, ids=lambda path: path.name)
def test_jobsets_are_whole(path):
    jobset = yaml.safe_load(path.read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 10
    assert policy["rules"] == [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}]
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert job["parallelism"] == job["completions"] > 1
    assert (job["completionMode"], job["backoffLimit"]) == ("Indexed", 0)
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never"  # which a pod failure policy asks for
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule == {
        "action": "FailJob",
        "onExitCodes": {"containerName": container["name"], "operator": "In", "values": [2, 3]},
    }
    volumes = {volume["name"] for volume in pod.get("volumes", ())}
    assert {mount["name"] for mount in container.get("volumeMounts", ())} == volumes

    words = [word.replace("$(PROCESS_ID)", "1") for word in container["command"]]
    options, config = train_line(words)
    assert (options.command, config.task) == ("train", "tokenizer")
    assert str(options.workdir).startswith(("/runs/", "gs://"))
    if path.name == "jobset_gpu.yaml":
        assert options.num_processes == job["parallelism"]
        # What JobSet calls the first pod: set, replicated job, its index, the pod's index, and the service.
        name = jobset["metadata"]["name"]
        assert options.coordinator.partition(":")[0] == f"{name}-{replicated['name']}-0-0.{name}"
        assert [entry["name"] for entry in container["env"]] == ["PROCESS_ID"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] >= 1
    else:
        hosts, chips = job["parallelism"], container["resources"]["limits"]["google.com/tpu"]
        rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
        assert hosts * chips == rows * columns
        assert options.coordinator is None


def run_with_commands(script: str, arguments: list[str], commands: dict[str, str], folder: Path, **environment: str):
    """Runs a script in which some commands are the given shell text; returns its status and how they were called."""
    folder.mkdir()
    for name, text in commands.items():
        (folder / name).write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> "{folder}/calls"\n{text}\n')
        (folder / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"} | environment
    done = subprocess.run(["bash", str(LAUNCH / script), *arguments], env=environment, check=False, timeout=60)
    return done.returncode, (folder / "calls").read_text().splitlines()


# A slice that is active once it was made, is taken away during the first training, and stays through the second.
GCLOUD = """
state="$(cat "{0}/state" 2>/dev/null)"
case "$*" in
*describe*) [ -n "$state" ] && echo "$state" || exit 1 ;;
*create*) echo ACTIVE > "{0}/state"; echo >> "{0}/made" ;;
*delete*) rm "{0}/state" ;;
*ssh*) [ "$(wc -l < "{0}/made")" -eq 2 ] || {{ {1}; exit 1; }} ;;
esac
"""
POD = {"ZONE": "z", "ACCELERATOR": "v5litepod-16", "RUNTIME": "r", "POLL": "0"}
LINE = ["--config", "configs/tokenizer_imagenet.py:k=3,f=16", "--workdir", "/runs/it s", "--config.seed=1"]


def test_a_tpu_slice_that_is_preempted_is_asked_for_again(tmp_path):
    folder = tmp_path / "commands"
    gcloud = GCLOUD.format(folder, f'echo SUSPENDED > "{folder}/state"')
    status, calls = run_with_commands("tpu_pod.sh", ["dual", *LINE], {"gcloud": gcloud}, folder, **POD)
    assert status == 0
    verbs = [re.search("create|delete|ssh", call)[0] for call in calls if "describe" not in call]
    assert verbs == ["create", "ssh", "delete", "create", "ssh"]
    ssh = calls[-1]
    assert "--worker all" in ssh
    command = ssh.partition("--command ")[2].partition(" && ")[2]
    words = subprocess.run(["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
    options, config = train_line(words.stdout.splitlines())
    assert (str(options.workdir), config.seed, config.model.num_codebooks) == ("/runs/it s", 1, 3)


def test_training_that_fails_on_a_slice_that_stays_ends(tmp_path):
    folder = tmp_path / "commands"
    gcloud = GCLOUD.format(folder, "true")
    status, calls = run_with_commands("tpu_pod.sh", ["dual", *LINE], {"gcloud": gcloud}, folder, **POD)
    assert status == 1
    assert sum("ssh" in call for call in calls) == 1


@pytest.mark.parametrize("script", ["slurm.sbatch", "slurm_array.sbatch"])
@pytest.mark.parametrize(("exit_status", "requeued"), [(0, False), (2, False), (143, True)])
def test_a_job_that_was_stopped_and_saved_queues_again(script, exit_status, requeued, tmp_path):
    commands = {"srun": f"exit {exit_status}", "scontrol": ""}
    environment = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    status, calls = run_with_commands(script, LINE, commands, tmp_path / "commands", **environment)
    assert status == exit_status
    assert ("scontrol requeue 7" in calls) == requeued
    line = calls[0].partition("fqgan ")[2]
    if script == "slurm.sbatch":
        assert line == f"train {' '.join(LINE)}"
    else:
        assert line == f"ablate {' '.join(LINE)} --only-run 3"
