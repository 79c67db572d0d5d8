"""Topologies by name: which devices they have; sentences for those that there are not."""

import pytest
from support.tiny_configs import tiny_generator_config, tiny_tokenizer_config

from fqgan_jax.cli.main import main
from fqgan_jax.errors import UserError
from fqgan_jax.performance import gpu_topology
from fqgan_jax.performance.chips import CHIPS, chip_of
from fqgan_jax.performance.gpu_topology import GPUS
from fqgan_jax.performance.plan import make_plan
from fqgan_jax.performance.programs import make_program
from fqgan_jax.performance.topology import compiler_options, count_chips, hosts_of, topology_devices

PLUGIN = "jax_cuda13_plugin"
NEEDED = "the CUDA compiler: pip install fqgan-jax[cuda]"


def test_unknown_tpu_topologies_are_explained():
    pytest.importorskip("libtpu")
    with pytest.raises(UserError, match="no plan for topology 'v99:1x1'"):
        topology_devices("v99:1x1")


@pytest.mark.parametrize("name", ["h300:8", "gpu", "h100x8"])
def test_unknown_chips_are_explained(name):
    with pytest.raises(UserError, match="There is no chip for topology") as error:
        topology_devices(name)
    assert all(f"{gpu}:8" in str(error.value) for gpu in GPUS)


@pytest.mark.parametrize("name", ["h100:", "h100:0", "h100:9", "h100:8x", "h100:8x16", "h100:0x8", "h100:1x1x8"])
def test_odd_numbers_of_gpus_are_explained(name, capsys):
    assert main(["plan", "--config", "configs/demo_generator.py", "--topology", name]) == 2
    message = capsys.readouterr().err
    assert f"There is no topology {name!r}" in message
    assert message.count("\n") == 1


def test_a_missing_compiler_is_explained(monkeypatch, capsys):
    def missing(module, extra):
        raise UserError(f"This needs {module}, which is not installed: pip install fqgan-jax[{extra}].")

    monkeypatch.setattr(gpu_topology, "import_extra", missing)
    assert main(["plan", "--config", "configs/demo_generator.py", "--topology", "h100:8"]) == 2
    assert "pip install fqgan-jax[cuda]" in capsys.readouterr().err


def test_a_compiler_of_another_version_is_explained(monkeypatch):
    def refuse(*_, **__):
        raise NotImplementedError("topology not implemented for cuda")

    monkeypatch.setattr(gpu_topology, "import_extra", lambda module, extra: None)
    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", refuse)
    with pytest.raises(UserError, match=r"cannot be used .*not implemented for cuda.*fqgan-jax\[cuda\]"):
        topology_devices("h100:8")


def test_devices_and_hosts_of_gpus():
    pytest.importorskip(PLUGIN, reason=NEEDED)
    for name, chip in GPUS.items():
        assert chip_of(topology_devices(f"{name}:1")[0]) is chip
    one, many = topology_devices("h100:8"), topology_devices("h100:3x2")
    assert (len(one), count_chips(one), set(hosts_of(one))) == (8, 8, {0})
    assert (count_chips(many), hosts_of(many)) == (6, (0, 0, 1, 1, 2, 2))
    assert compiler_options(one[0])


@pytest.mark.slow
def test_a_plan_without_gpus():
    pytest.importorskip(PLUGIN, reason=NEEDED)
    config = tiny_generator_config("mesh.data=2", "mesh.fsdp=2", "model.width=128", "model.num_heads=2")
    devices = topology_devices("h100:2x2")
    plan = make_plan(make_program("step", config, devices, tokenizer_config=tiny_tokenizer_config()))
    assert (plan.chip, plan.chips, plan.hosts, plan.fits) == (CHIPS["H100 SXM"], 4, 2, True)
    assert plan.traffic.unknown_loops == 0
    assert plan.roofline.seconds > 0
    assert plan.roofline.network > 0
    # The state is split within a host; what a host has summed is summed over both.
    gathered = [each for each in plan.traffic.collectives if each.kind == "all-gather" and each.group == 2]
    assert gathered
    assert all(each.hosts == 1 and each.sent_between == 0 for each in gathered)
    reduced = sum(each.sent_between for each in plan.traffic.collectives if each.kind == "all-reduce")
    assert plan.memory["parameters"] / 4 <= reduced <= 2 * plan.memory["parameters"]
    assert any("__cublas" in what for mover in plan.traffic.movers for what in mover.instructions)
