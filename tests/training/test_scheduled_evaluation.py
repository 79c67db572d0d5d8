"""Evaluations during training give what `fqgan evaluate` gives for the same parameters."""

import numpy as np
from support import stand_in_features
from support.tiny_configs import tiny_generator_config, tiny_tokenizer_config

from fqgan_jax.api import load_generator, load_tokenizer
from fqgan_jax.evaluation.generator import evaluate_generator
from fqgan_jax.evaluation.image_set import open_images
from fqgan_jax.evaluation.reference import open_reference
from fqgan_jax.evaluation.tokenizer import evaluate_tokenizer
from fqgan_jax.sharding.mesh import make_mesh
from fqgan_jax.training import generator_evaluators, tokenizer_evaluators
from fqgan_jax.training.generator_task import GeneratorTask
from fqgan_jax.training.logging import read_log
from fqgan_jax.training.tokenizer_task import TokenizerTask


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(list(found.values()), [expected[name] for name in found], rtol=1e-4, atol=1e-5)


def run_all(task, params, mesh):
    """Numbers and pictures of all evaluators of a task."""
    values, pictures = {}, {}
    for evaluator in task.evaluators().values():
        found, shown = evaluator.run(params, mesh)
        values |= found
        pictures |= shown
    return values, pictures


def test_tokenizer(trained_tokenizer, monkeypatch):
    networks = stand_in_features.networks()
    monkeypatch.setattr(tokenizer_evaluators, "load_networks", lambda reconstruction_metrics: networks)
    tokenizer = load_tokenizer(trained_tokenizer)
    task = TokenizerTask(tiny_tokenizer_config("train.evaluate_count=30"), 8)
    values, pictures = run_all(task, tokenizer.params, make_mesh({"data": 4, "fsdp": 2}))
    images = open_images("photos", split="validation", size=16, limit=30)
    measured = evaluate_tokenizer(tokenizer, images, reference=None, networks=networks, batch_size=8)
    assert_same(values, measured.evaluation.results)
    assert "rfid" in values
    assert pictures["reconstructions"].shape == (2 * 16 + 2, 8 * 16 + 7 * 2, 3)

    logged = {name: value for name, value in read_log(trained_tokenizer)[-1].items() if name.startswith("validation/")}
    assert {"validation/psnr", "validation/ssim", "validation/mutual_information/0-1"} <= logged.keys()
    assert "validation/rfid" not in logged


def test_generator(trained_generator, trained_tokenizer, code_cache, image_folder, monkeypatch):
    networks = stand_in_features.networks()
    monkeypatch.setattr(generator_evaluators, "load_networks", lambda: networks)
    generator, tokenizer = load_generator(trained_generator), load_tokenizer(trained_tokenizer)
    fields = (f"data.codes={code_cache}", f"sample.tokenizer={trained_tokenizer}")
    fields += ("sample.count=11", f"sample.reference={image_folder}", "sample.guidance=3.0")
    # Images of the reference are cropped to the tokenizer's size.
    task = GeneratorTask(tiny_generator_config(*fields), 8)
    values, pictures = run_all(task, generator.params, make_mesh({"data": 8, "fsdp": 1}))
    sampling = {"guidance": [3.0], "temperature": [1.0], "top_k": [0], "top_p": [1.0]}
    reference = open_reference(str(image_folder), networks.inception, size=16, batch_size=8)
    measured = evaluate_generator(
        generator,
        tokenizer,
        count=11,
        seed=task.config.seed,
        sampling=sampling,
        reference=reference,
        networks=networks,
        batch_size=8,
    )
    assert_same(values, measured.evaluation.results)
    assert values["gfid"] > 0
    assert pictures["samples"].ndim == 3


def test_generator_without_a_tokenizer_is_not_evaluated(code_cache):
    task = GeneratorTask(tiny_generator_config(f"data.codes={code_cache}"), 8)
    assert task.evaluators() == {}
