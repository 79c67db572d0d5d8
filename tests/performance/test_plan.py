"""What a plan counts, against the sizes of the arrays themselves."""

import json

import jax
import numpy as np
import pytest
from support.tiny_configs import tiny_generator_config, tiny_tokenizer_config

from fqgan_jax.cli.main import main
from fqgan_jax.performance import plan as plan_module
from fqgan_jax.performance.chips import CHIPS
from fqgan_jax.performance.plan import Plan, make_plan
from fqgan_jax.performance.programs import input_bytes, make_program
from fqgan_jax.performance.tasks import make_step, model_flops
from fqgan_jax.performance.topology import count_chips, topology_devices
from fqgan_jax.training.tokenizer_task import TokenizerTask


def plan_of(config, devices, *, program: str = "step", tokenizer_config=None) -> Plan:
    return make_plan(make_program(program, config, devices, tokenizer_config=tokenizer_config))


def tree_bytes(tree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@pytest.mark.slow
def test_memory_is_the_state_and_a_share_of_the_batch():
    small = ("model.factorization=split", "model.multipliers=(1,2)", "model.z_channels=16", "teachers=(None,None)")
    config = tiny_tokenizer_config("optimizer.ema_decay=0.9", *small)
    plan = plan_of(config, jax.devices())
    task, key = TokenizerTask(config, 8), jax.random.key(0)
    state, batch = jax.eval_shape(task.init, key), jax.eval_shape(task.random_batch, key)
    assert (plan.devices, plan.chips, plan.batch_size, plan.images_per_chip) == (8, 8, 8, 1)
    assert plan.memory["parameters"] == tree_bytes(state.params)
    assert plan.memory["moving average"] == tree_bytes(state.params)
    assert plan.memory["batch"] == tree_bytes(batch) / 8
    # Adam keeps two numbers a parameter, and a few counters.
    np.testing.assert_allclose(plan.memory["optimizer"], 2 * plan.memory["parameters"], rtol=1e-3)
    assert plan.memory["temporaries"] > 0
    assert plan.total_memory == sum(plan.memory.values())
    assert plan.fits
    assert (plan.chip, plan.roofline) == (None, None)
    # All gradients are summed over the devices, in float32 as the parameters are.
    reduced = sum(c.bytes for c in plan.traffic.collectives if c.kind == "all-reduce")
    assert reduced >= plan.memory["parameters"]
    assert plan.flops == plan.model_flops > 0
    # Everything is read, and the state written.
    state = plan.memory["parameters"] + plan.memory["optimizer"] + plan.memory["moving average"]
    assert plan.floor == 2 * state + plan.memory["frozen networks"] + plan.memory["batch"]


def test_memory_of_both_players():
    config = tiny_tokenizer_config("adversarial.discriminator=style", "adversarial.width=4")
    step = make_step(config)
    state, parts = step.shapes.state, input_bytes(step)
    assert parts["parameters"] == tree_bytes(state.params) + tree_bytes(state.adversary.params)
    assert parts["optimizer"] == tree_bytes(state.opt_state) + tree_bytes(state.adversary.opt_state)


def test_memory_of_a_split_state():
    step = make_step(
        tiny_generator_config("model.width=256", "mesh.data=1", "mesh.fsdp=8"), tokenizer_config=tiny_tokenizer_config()
    )
    parts = input_bytes(step)
    params = step.shapes.state.params
    # Small arrays stay whole: everywhere, all of the larger ones have a dimension that eight devices split.
    held = [leaf.size * 4 / (8 if leaf.size >= 2**14 else 1) for leaf in jax.tree.leaves(params)]
    assert parts["parameters"] == sum(held) < 0.2 * tree_bytes(params)
    assert parts["moving average"] == parts["frozen networks"] == 0


def test_model_flops_leave_out_what_is_computed_again():
    tokenizer = tiny_tokenizer_config()
    plain = tiny_generator_config("mesh.data=8")
    flops = {}
    for remat in ("none", "blocks", "full"):
        config = tiny_generator_config(f"model.remat={remat}")
        assert model_flops(config, tokenizer_config=tokenizer) == make_step(plain, tokenizer_config=tokenizer).flops
        flops[remat] = make_step(config, tokenizer_config=tokenizer).flops
    assert flops["none"] < flops["blocks"] < flops["full"] < 4 / 3 * flops["none"]


def test_generator_flops_by_hand():
    """Products with weights, three times for a step, and those of attention."""
    config, tokenizer = tiny_generator_config(), tiny_tokenizer_config()
    step = make_step(config, tokenizer_config=tokenizer)
    params, module = step.shapes.state.params, step.task.module
    B, (h, w), K, D = config.data.batch_size, module.grid, module.num_codebooks, module.width
    T = h * w

    def kernels(name):
        return sum(leaf.size for leaf in jax.tree.leaves(params[name]) if leaf.ndim > 2)

    once = 2 * B * T * kernels("backbone") + 2 * B * T * K * kernels("head") + 2 * B * T * params["outputs"].size
    once += 2 * B * (T - 1) * params["aggregate"]["kernel"].size
    once += 2 * 2 * B * D * (module.depth * T * T + module.head_depth * T * K * K)
    # The first product's input, the codes' embedding, is learned too: everything has both of its gradients.
    np.testing.assert_allclose(step.flops, 3 * once, rtol=1e-6)


def test_what_the_compiler_says_of_memory_that_is_lacking():
    message = (
        "RESOURCE_EXHAUSTED: ... the total memory required for HLO temporaries (16.98G) exceeds available HBM (15.75G)."
    )
    assert plan_module._out_of_memory(RuntimeError(message)) == (16.98 * 2**30, 15.75 * 2**30)
    with pytest.raises(RuntimeError, match="another"):
        plan_module._out_of_memory(RuntimeError("another error of 1G and 2G"))


def test_command_prints_and_writes_the_plan(tmp_path, capsys):
    command = ["plan", "--config", "configs/demo_generator.py", "--topology", "local", "--batch", "1"]
    command += ["--tokenizer-config", "configs/demo_tokenizer.py:k=3", "--json", str(tmp_path / "plan.json")]
    command += ["--config.model.width=16", "--config.model.depth=1", "--traffic", "3"]
    assert main(command) == 0
    written, printed = json.loads((tmp_path / "plan.json").read_text()), capsys.readouterr().out
    assert written["batch_size"] == 8
    assert f"memory a chip: {sum(written['memory'].values()) / 2**30:.2f} GiB, fits" in printed
    assert any(c["kind"] == "all-reduce" and c["group"] == 8 for c in written["traffic"]["collectives"])
    assert "all-reduce" in printed
    movers = written["traffic"]["movers"]
    assert len(movers) == 3
    assert all(mover["name"] in printed and mover["count"] >= 1 for mover in movers)


@pytest.mark.slow
def test_a_plan_without_tpu_hardware():
    pytest.importorskip("libtpu", reason="pip install fqgan-jax[tpu]")
    devices = topology_devices("v5e:2x2")
    plan = plan_of(tiny_generator_config(), devices, tokenizer_config=tiny_tokenizer_config())
    assert (plan.chip, plan.chips, plan.fits) == (CHIPS["TPU v5e"], 4, True)
    assert plan.xla_flops > 0
    assert plan.traffic.unknown_loops == 0
    assert plan.roofline.seconds > 0
    (reduced,) = plan.traffic.collectives
    assert (reduced.kind, reduced.group) == ("all-reduce", 4)
    # Each layer reduces its own gradients, in a loop over layers; that of the weights in the compute dtype.
    assert plan.memory["parameters"] / 2 <= reduced.bytes <= 1.1 * plan.memory["parameters"]
    assert count_chips(topology_devices("v4:2x2x1")) == 4
    assert len(topology_devices("v4:2x2x1")) == 8


@pytest.mark.slow
@pytest.mark.parametrize("program", ["sample", "encode", "decode"])
def test_inference_splits_its_batch_over_the_chips(program):
    tokenizer = tiny_tokenizer_config()
    config = tiny_generator_config() if program == "sample" else tokenizer
    config.data.batch_size = 16
    plan = plan_of(config, jax.devices(), program=program, tokenizer_config=tokenizer)
    alone = plan_of(config, jax.devices()[:1], program=program, tokenizer_config=tokenizer)
    assert (plan.program, plan.images_per_chip, alone.images_per_chip) == (program, 2, 16)
    assert plan.memory["parameters"] == alone.memory["parameters"]
    assert plan.memory["batch"] == alone.memory["batch"] / 8
    assert plan.flops == plan.model_flops == alone.flops / 8
    assert plan.floor < alone.floor
    assert plan.traffic.bytes > plan.floor
    assert program == "sample" or plan.traffic.collectives == ()


def test_programs_of_the_other_task_are_refused(capsys):
    command = ["plan", "--config", "configs/demo_generator.py", "--topology", "local", "--program"]
    assert main([*command, "encode"]) == 2
    assert "encode is a program of a tokenizer" in capsys.readouterr().err
    assert main([*command, "dream"]) == 2
    assert "choose one of step, sample, encode, decode" in capsys.readouterr().err
