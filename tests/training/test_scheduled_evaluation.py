"""Evaluations during training give what `fqgan evaluate` gives for the same parameters."""

import shutil

import jax
import numpy as np
import pytest
from scipy.special import log_softmax
from support import stand_in_features
from support.tiny_configs import tiny_generator_config, tiny_tokenizer_config

from fqgan_jax.api import load_generator, load_tokenizer
from fqgan_jax.caches.codes import VALIDATION, CodeCache
from fqgan_jax.errors import UserError
from fqgan_jax.evaluation.generator import evaluate_generator
from fqgan_jax.evaluation.image_set import open_images
from fqgan_jax.evaluation.reference import open_reference
from fqgan_jax.evaluation.tokenizer import evaluate_tokenizer
from fqgan_jax.pictures.figures import image_rows
from fqgan_jax.sharding.mesh import make_mesh
from fqgan_jax.training import generator_evaluators, tokenizer_evaluators
from fqgan_jax.training.generator_task import GeneratorTask
from fqgan_jax.training.logging import read_log
from fqgan_jax.training.tokenizer_task import TokenizerTask

NETWORKS = stand_in_features.networks()


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


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """A small network instead of Inception, whatever the cache holds."""

    def load(**options):
        return NETWORKS

    for module in (tokenizer_evaluators, generator_evaluators):
        monkeypatch.setattr(module, "load_networks", load)


@pytest.mark.slow
def test_tokenizer(trained_tokenizer):
    tokenizer = load_tokenizer(trained_tokenizer)
    task = TokenizerTask(tiny_tokenizer_config("train.evaluate_count=30"), 8)
    values, pictures = run_all(task, tokenizer.params, make_mesh({"data": 4, "fsdp": 2}))
    images = open_images("photos", split="validation", size=16, limit=30)
    measured = evaluate_tokenizer(tokenizer, images, reference=None, networks=NETWORKS, batch_size=8)
    assert_same(values, measured.evaluation.results)
    assert "rfid" in values
    assert pictures["reconstructions"].shape == (2 * 16 + 2, 8 * 16 + 7 * 2, 3)

    logged = {name: value for name, value in read_log(trained_tokenizer)[-1].items() if name.startswith("validation/")}
    assert {"validation/psnr", "validation/ssim", "validation/mutual_information/0-1"} <= logged.keys()
    assert "validation/rfid" not in logged


@pytest.mark.slow
def test_generator(trained_generator, trained_tokenizer, code_cache, image_folder):
    generator, tokenizer = load_generator(trained_generator), load_tokenizer(trained_tokenizer)
    fields = (f"data.codes={code_cache}", f"sample.tokenizer={trained_tokenizer}")
    fields += ("sample.count=11", f"sample.reference={image_folder}", "sample.guidance=3.0")
    fields += ("sample.temperature=0.7", "sample.top_k=20", "sample.top_p=0.9")
    # Images of the reference are cropped to the tokenizer's size.
    task = GeneratorTask(tiny_generator_config(*fields), 8)
    values, pictures = run_all(task, generator.params, make_mesh({"data": 8, "fsdp": 1}))
    sampling = {"guidance": [3.0], "temperature": [0.7], "top_k": [20], "top_p": [0.9]}
    reference = open_reference(str(image_folder), NETWORKS.features, size=16, batch_size=8)
    measured = evaluate_generator(
        generator,
        tokenizer,
        count=11,
        seed=task.config.seed,
        sampling=sampling,
        reference=reference,
        networks=NETWORKS,
        batch_size=8,
    )
    held_out = {name: values.pop(name) for name in list(values) if name.startswith("next_code")}
    assert held_out.keys() == {"next_code", *(f"next_code{kind}/{k}" for kind in ("", "_perplexity") for k in (0, 1))}
    assert_same(values, measured.evaluation.results)
    assert values["gfid"] > 0
    per_class = task.config.sample.per_class
    codes = generator.sample(np.repeat([0, 1], per_class), key=jax.random.key(task.config.seed), **sampling)
    images = np.asarray(tokenizer.decode(codes))
    expected = image_rows(images.reshape(2, per_class, *images.shape[1:]))
    np.testing.assert_allclose(pictures["samples"].astype(int), expected, atol=1)


def test_generator_without_a_tokenizer_is_measured_on_held_out_codes_alone(code_cache, trained_generator):
    task = GeneratorTask(tiny_generator_config(f"data.codes={code_cache}"), 8)
    generator = load_generator(trained_generator)
    values, pictures = run_all(task, generator.params, make_mesh({"data": 4, "fsdp": 2}))
    assert pictures.keys() == {"held_out"}
    cache = CodeCache(code_cache / VALIDATION)
    labels, codes = zip(*(cache[i] for i in range(len(cache))), strict=True)
    codes = np.concatenate(codes)
    logits = np.asarray(generator.logits(codes, np.array(labels)), np.float64)
    losses = -np.take_along_axis(log_softmax(logits, axis=-1), codes.reshape(len(codes), -1, 2, 1), axis=-1)
    assert values["next_code"] == pytest.approx(losses.mean(), rel=1e-4)
    assert values["next_code/1"] == pytest.approx(losses[:, :, 1].mean(), rel=1e-4)


def test_codes_without_held_out_ones_are_trained_on_all_the_same(code_cache, tmp_path):
    shutil.copytree(code_cache, tmp_path / "codes", ignore=shutil.ignore_patterns(VALIDATION))
    task = GeneratorTask(tiny_generator_config(f"data.codes={tmp_path / 'codes'}"), 8)
    assert run_all(task, None, None) == ({}, {})
    with pytest.raises(UserError, match="holds no code cache"):
        GeneratorTask(tiny_generator_config(f"data.codes={tmp_path / 'codes'}", f"data.validation_codes={tmp_path}"), 8)


def test_each_evaluator_has_its_own_period():
    task = TokenizerTask(tiny_tokenizer_config("train.evaluate_every=50", "evaluation.pictures=5"), 8)
    assert {name: each.every for name, each in task.evaluators().items()} == {"reconstructions": 50, "pictures": 5}
    assert task.evaluators()["pictures"] is task.evaluators()["pictures"]
    with pytest.raises(UserError, match=r"evaluation\.pictures is -1"):
        TokenizerTask(tiny_tokenizer_config("evaluation.pictures=-1"), 8).evaluators()


def test_a_period_of_no_evaluator_names_the_nearest():
    config = tiny_tokenizer_config()
    with config.unlocked():
        config.evaluation.picture = 5
    with pytest.raises(UserError, match=r"evaluation\.picture is 'picture'.*did you mean 'pictures'"):
        TokenizerTask(config, 8).evaluators()
