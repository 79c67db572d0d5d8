"""Exported programs run with JAX, NumPy and safetensors alone and give what the models give."""

import json
import runpy
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import setuptools
from jax import export
from packaging.requirements import Requirement
from safetensors.numpy import save_file
from support.tiny_models import IMAGE_SIZE, tiny_generator, tiny_tokenizer

from fqgan_jax.export.stablehlo import flat_params, generator_programs, tokenizer_programs

# Runs in a process of its own: the programs of each folder on batches of its inputs.npz.
RUNNER = """
import json, sys
import jax, numpy as np
from jax import export
from safetensors.numpy import load_file

for folder in sys.argv[1:]:
    params, inputs, outputs = load_file(f"{folder}/params.safetensors"), np.load(f"{folder}/inputs.npz"), {}
    def program(name):
        return jax.jit(export.deserialize(bytearray(open(f"{folder}/{name}.jaxexport", "rb").read())).call)
    if "images" in inputs:
        encode, decode = program("encode"), program("decode")
        for batch in (1, 3):
            outputs[f"codes{batch}"] = encode(params, inputs["images"][:batch])
            outputs[f"images{batch}"] = decode(params, outputs[f"codes{batch}"])
    else:
        sample = program("sample")
        for batch in (1, 3):
            for name in ("greedy", "drawn"):
                settings = inputs["guidance"], inputs[name]
                outputs[f"{name}{batch}"] = sample(params, jax.random.key(7), inputs["labels"][:batch], *settings)
    np.savez(f"{folder}/outputs.npz", **outputs)
assert not [name for name in sys.modules if name.split(".")[0] in ("fqgan_jax", "flax")]
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""

TOKENIZERS = {
    "adapters": tiny_tokenizer(3),
    "split": tiny_tokenizer(2, "split", chunk_tokens=8, dtype=jnp.dtype("bfloat16")),
}
GENERATOR = tiny_generator(2)
IMAGES = np.random.default_rng(1).uniform(-1, 1, (3, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.float32)
LABELS = np.array([2, 0, 1], np.int32)
GUIDANCE = np.array([2.0, 1.5], np.float32)
TEMPERATURE = {"greedy": np.array([0.0, 0.0], np.float32), "drawn": np.array([0.7, 1.0], np.float32)}


@pytest.fixture(scope="module")
def other_process(tmp_path_factory):
    """What the programs gave in the other process, by model, and the packages that it imported."""
    root = tmp_path_factory.mktemp("stablehlo")
    for name, model in (TOKENIZERS | {"generator": GENERATOR}).items():
        folder = root / name
        folder.mkdir()
        programs = generator_programs if model is GENERATOR else tokenizer_programs
        for program, exported in programs(model.module, model.params).items():
            (folder / f"{program}.jaxexport").write_bytes(exported.serialize())
        save_file(flat_params(model.params), folder / "params.safetensors")
        inputs = {"labels": LABELS, "guidance": GUIDANCE} | TEMPERATURE if model is GENERATOR else {"images": IMAGES}
        np.savez(folder / "inputs.npz", **inputs)
    folders = sorted(root.iterdir())
    command = [sys.executable, "-c", RUNNER, *map(str, folders)]
    printed = subprocess.run(command, check=True, cwd=root, stdout=subprocess.PIPE, text=True).stdout
    return {folder.name: dict(np.load(folder / "outputs.npz")) for folder in folders}, json.loads(printed)


@pytest.fixture(scope="module")
def outputs(other_process):
    return other_process[0]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizer(outputs, name, batch):
    tokenizer = TOKENIZERS[name]
    codes = tokenizer.encode(IMAGES[:batch])
    assert len(np.unique(codes)) > 3
    np.testing.assert_array_equal(outputs[name][f"codes{batch}"], codes)
    tolerance = {"adapters": 1e-5, "split": 0.02}[name]  # of float32 and bfloat16
    np.testing.assert_allclose(outputs[name][f"images{batch}"], tokenizer.decode(codes), atol=tolerance)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", TEMPERATURE)
def test_generator(outputs, name, batch):
    guidance, temperature = GUIDANCE.tolist(), TEMPERATURE[name].tolist()
    codes = GENERATOR.sample(LABELS[:batch], key=jax.random.key(7), guidance=guidance, temperature=temperature)
    assert len(np.unique(codes)) > 3
    np.testing.assert_array_equal(outputs["generator"][f"{name}{batch}"], codes)


def required_distributions(requirements: list[str]) -> set[str]:
    """Names of the installed distributions that these requirements bring."""
    names, waiting = set(), list(requirements)
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonical(requirement.name)
        if name not in names and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            names.add(name)
            waiting += metadata.requires(name) or ()
    return names


def canonical(distribution: str) -> str:
    return distribution.lower().replace("_", "-")


def test_a_base_installation_has_all_that_programs_need(other_process, monkeypatch):
    declared = {}
    monkeypatch.setattr(setuptools, "setup", declared.update)
    monkeypatch.chdir(Path(__file__).parents[2])
    runpy.run_path("setup.py")
    installed = required_distributions(declared["install_requires"])
    distributions = metadata.packages_distributions()
    # Python starts with packages that begin with "_"; JAX itself looks for the plug-ins of accelerators.
    imported = {name for name in other_process[1] if name in distributions and not name.startswith("_")}
    missing = {name for name in imported if installed.isdisjoint(map(canonical, distributions[name]))}
    assert missing <= {"libtpu", "jax_plugins"}
    assert {"flatbuffers", "jax", "safetensors"} <= imported


def test_programs_are_for_any_batch_and_three_platforms():
    tokenizer = TOKENIZERS["adapters"]
    programs = tokenizer_programs(tokenizer.module, tokenizer.params)
    programs |= generator_programs(GENERATOR.module, GENERATOR.params)
    for name, exported in programs.items():
        program = export.deserialize(exported.serialize())
        assert program.platforms == ("cpu", "cuda", "tpu")
        assert str(program.out_avals[0].shape[0]) == "b"
        assert str(program.out_avals[0].dtype) == ("float32" if name == "decode" else "int32")
    assert not any("feature_predictors" in path for path in flat_params(tokenizer.params))
