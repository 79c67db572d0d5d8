"""Benchmarks: what they count, against sizes; that they run and agree with themselves."""

import json
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest

from fqgan_jax.cli.main import main
from fqgan_jax.models.quantizers import QuantizerSizes, quantizers
from fqgan_jax.performance.bench import bench_quantizer, training_of
from fqgan_jax.performance.measure import Clock, Work, copy_bandwidth, measure, timed


def test_calls_are_waited_for_and_fed_with_their_results():
    seen = []

    def function(x):
        seen.append(x)
        time.sleep(0.02)
        return x + 1

    def call(x):
        result = function(x)
        return result, result

    seconds = timed(call, 0, Clock(warm_up=2, repeats=3))
    assert seen == [0, 1, 2, 3, 4]
    assert len(seconds) == 3
    assert min(seconds) >= 0.02


def test_measured_numbers_follow_from_each_other():
    x = jnp.ones((64, 64))
    lowered = jax.jit(lambda x: x @ x).lower(x)
    work = Work(
        lowered=lowered, inputs=x, call=lambda compiled, x: (compiled(x), x), images=64, tokens=640, flops=2 * 64**3
    )
    values = measure(work, Clock(warm_up=1, repeats=3))
    devices, median = jax.device_count(), values["median (s)"]
    assert values["fastest (s)"] <= median <= values["slowest (s)"]
    assert values["images/s a device"] == pytest.approx(64 / median / devices)
    assert values["tokens/s a device"] == pytest.approx(10 * values["images/s a device"])
    assert values["TFLOP/s a device"] == pytest.approx(2 * 64**3 / median / devices / 1e12)
    assert values["memory traffic (GB, estimate)"] == pytest.approx(2 * 64 * 64 * 4 / 1e9)
    assert values["model FLOPs utilization"].startswith("not known")


@pytest.mark.slow
def test_a_profile_is_written(tmp_path):
    # In a process of its own: the profiler crashes where other tests have loaded the TPU compiler without a TPU.
    program = (
        "import sys, jax; from pathlib import Path; from fqgan_jax.performance.measure import Clock, timed\n"
        "increment = jax.jit(lambda x: x + 1)\n"
        "timed(lambda x: (increment(x), x), 1.0, Clock(warm_up=1, repeats=2, profile=Path(sys.argv[1])))"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=300)
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_bandwidth_of_a_copy_is_plausible():
    assert 1e8 < copy_bandwidth(2**22) < 1e13


def test_chunks_save_memory_and_change_no_gradient():
    sizes = QuantizerSizes(num_codebooks=2, codebook_size=256, code_dim=8, chunk_tokens=64)
    values = bench_quantizer("vq", sizes, tokens=1024, clock=Clock(warm_up=1, repeats=1))
    assert values["chunked / direct temporaries"] < 0.2
    assert values["largest relative difference"] < 1e-4


@pytest.mark.parametrize(("name", "code_dim"), [("ibq", 16), ("lfq", 18), ("bsq", 18)])
def test_many_entries_need_no_more_memory_than_the_published_ones(name, code_dim):
    def temporaries(name, **sizes):
        module = quantizers[name](sizes=QuantizerSizes(num_codebooks=2, chunk_tokens=512, **sizes))
        latents = jax.ShapeDtypeStruct((2, 16, 16, 2, sizes["code_dim"]), jnp.float32)
        params = jax.eval_shape(module.init, jax.random.key(0), latents).get("params", {})
        compiled = jax.jit(training_of(module)).lower(params, latents).compile()
        return compiled.memory_analysis().temp_size_in_bytes, sum(4 * leaf.size for leaf in jax.tree.leaves(params))

    published, _ = temporaries("vq", codebook_size=2**14, code_dim=code_dim)
    many, own = temporaries(name, codebook_size=2**18, code_dim=code_dim)
    # The gradient of the table, as large as the table, is a result that passes through buffers of its own.
    assert many <= published + 4 * own


TINY = {
    "generator-train": ("configs/demo_generator.py", "model.width=16", "model.depth=1", "data.batch_size=8"),
    "generator-sample": ("configs/demo_generator.py", "model.width=16", "model.depth=1"),
    "tokenizer-encode": ("configs/demo_tokenizer.py", "model.base_width=8", "data.batch_size=8"),
    "tokenizer-decode": ("configs/demo_tokenizer.py", "model.base_width=8", "data.batch_size=8"),
    "loader": ("configs/demo_tokenizer.py", "data.batch_size=2"),
}


@pytest.mark.slow
@pytest.mark.parametrize("part", TINY)
def test_command(part, tmp_path, capsys):
    config, *fields = TINY[part]
    command = ["bench", part, "--config", config, "--tokenizer-config", "configs/demo_tokenizer.py", "--steps", "1"]
    command += ["--json", str(tmp_path / "out.json"), *(f"--config.{field}" for field in fields)]
    assert main(command) == 0
    values = json.loads((tmp_path / "out.json").read_text())["values"]
    rate = {"generator-sample": "batch 8: images/s", "loader": "this loader (images/s)"}.get(part, "images/s a device")
    assert values[rate] > 0
    assert rate in capsys.readouterr().out


def test_a_config_of_the_other_task_is_refused(capsys):
    assert main(["bench", "tokenizer-encode", "--config", "configs/demo_generator.py"]) == 2
    assert "needs a tokenizer's config" in capsys.readouterr().err
