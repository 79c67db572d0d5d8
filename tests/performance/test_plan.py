"""What a plan counts, against the sizes of the arrays themselves; the search, on plans made up."""

import json

import jax
import numpy as np
import pytest
from support.tiny_configs import tiny_generator_config, tiny_tokenizer_config

from fqgan_jax.cli.main import main
from fqgan_jax.errors import UserError
from fqgan_jax.performance import plan as plan_module
from fqgan_jax.performance import search
from fqgan_jax.performance.chips import CHIPS
from fqgan_jax.performance.plan import StepPlan, input_bytes, plan_step
from fqgan_jax.performance.search import largest_batch
from fqgan_jax.performance.tasks import make_step, model_flops
from fqgan_jax.performance.topology import count_chips, topology_devices
from fqgan_jax.training.tokenizer_task import TokenizerTask


def tree_bytes(tree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@pytest.mark.slow
def test_memory_is_the_state_and_a_share_of_the_batch():
    small = ("model.factorization=split", "model.multipliers=(1,2)", "model.z_channels=16", "teachers=(None,None)")
    config = tiny_tokenizer_config("optimizer.ema_decay=0.9", *small)
    plan = plan_step(config, jax.devices())
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


def made_up_plan(examples: int, available: float = 100.0) -> StepPlan:
    memory = {"parameters": 30.0, "temporaries": 5 + 1.7 * examples + 0.002 * examples**2}
    fits = sum(memory.values()) <= available
    return StepPlan(
        devices=8,
        chips=8,
        batch_size=8 * examples,
        chip=CHIPS["TPU v5e"],
        memory=memory,
        available=available,
        fits=fits,
        model_flops=1,
        flops=1,
        xla_flops=1,
        traffic=None,
        compile_seconds=0.0,
    )


@pytest.mark.parametrize("start", [1, 8, 100])
def test_search_finds_the_largest_batch_in_few_compilations(monkeypatch, start):
    tried = []

    def fake(config, devices, tokenizer_config):
        tried.append(config.data.batch_size // 8)
        return made_up_plan(tried[-1])

    monkeypatch.setattr(search, "plan_step", fake)
    config = tiny_tokenizer_config(f"data.batch_size={8 * start}")
    best = largest_batch(config, jax.devices(), max_compilations=8)
    largest = max(n for n in range(1, 100) if made_up_plan(n).fits)
    assert best.batch_size == 8 * largest
    assert len(tried) == len(set(tried)) <= 8


def test_search_where_nothing_fits(monkeypatch):
    monkeypatch.setattr(search, "plan_step", lambda config, *_: made_up_plan(config.data.batch_size // 8, 20))
    with pytest.raises(UserError, match="No batch fits: 1 example"):
        largest_batch(tiny_tokenizer_config("data.batch_size=16"), jax.devices())


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
    command += ["--config.model.width=16", "--config.model.depth=1"]
    assert main(command) == 0
    written, printed = json.loads((tmp_path / "plan.json").read_text()), capsys.readouterr().out
    assert written["batch_size"] == 8
    assert f"memory a chip: {sum(written['memory'].values()) / 2**30:.2f} GiB, fits" in printed
    assert any(c["kind"] == "all-reduce" and c["group"] == 8 for c in written["traffic"]["collectives"])
    assert "all-reduce" in printed


def test_unknown_topologies_are_explained():
    pytest.importorskip("libtpu")
    with pytest.raises(UserError, match="no plan for topology 'v99:1x1'"):
        topology_devices("v99:1x1")


@pytest.mark.slow
def test_a_plan_without_tpu_hardware():
    pytest.importorskip("libtpu", reason="pip install fqgan-jax[tpu]")
    devices = topology_devices("v5e:2x2")
    plan = plan_step(tiny_generator_config(), devices, tiny_tokenizer_config())
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
