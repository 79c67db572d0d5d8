"""Metrics and evaluators that a user adds from a file outside the package."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from support import stand_in_features

from fqgan_jax.api import load_tokenizer
from fqgan_jax.cli.main import main
from fqgan_jax.config import load_config
from fqgan_jax.data.pixels import to_float
from fqgan_jax.errors import UserError
from fqgan_jax.evaluation import metrics
from fqgan_jax.evaluation.image_set import open_images
from fqgan_jax.evaluation.images import evaluate_images
from fqgan_jax.evaluation.networks import EvaluationNetworks, load_networks
from fqgan_jax.evaluation.results import code_results
from fqgan_jax.evaluation.tokenizer import evaluate_tokenizer
from fqgan_jax.training import evaluators
from fqgan_jax.training.logging import read_log
from fqgan_jax.training.loop import train

OWN_ROWS = """
import jax.numpy as jnp
import optax
from fqgan_jax.evaluation import metrics
from fqgan_jax.training import evaluators

@metrics.reconstruction("l1", better="lower")
def l1(reconstruction, original):
    return jnp.mean(jnp.abs(reconstruction - original), axis=(1, 2, 3))

@evaluators.tokenizer("parameters")
def parameters(context, params, mesh):
    return {"parameter_norm": float(optax.tree.norm(params))}, {}
"""

CONFIG = """
import own_rows
from support.tiny_configs import tiny_tokenizer_config

def get_config(arguments):
    config = tiny_tokenizer_config("train.steps=3", "train.evaluate_every=2", "train.checkpoint_every=1")
    with config.unlocked():
        config.evaluation.parameters = 1
    return config
"""


@pytest.fixture(autouse=True)
def tables_and_cache(monkeypatch, tmp_path):
    """Undoes what a test adds to the tables; no weights are in the cache."""
    monkeypatch.setenv("FQGAN_CACHE", str(tmp_path / "cache"))
    for table in (metrics.reconstruction, metrics.feature, metrics.code, evaluators.tokenizer):
        monkeypatch.setattr(table, "_rows", dict(table))


def logged(log, name):
    return {line["step"]: line[name] for line in log if name in line}


@pytest.mark.slow
def test_a_file_of_the_users(image_folder, tmp_path, capsys):
    (tmp_path / "own_rows.py").write_text(OWN_ROWS)
    (tmp_path / "own_config.py").write_text(CONFIG)
    workdir, out = tmp_path / "run", tmp_path / "out.json"
    train(load_config(str(tmp_path / "own_config.py"), ["--config.train.keep_best=-l1"]), workdir)

    log = read_log(workdir)
    assert list(logged(log, "validation/parameter_norm")) == [1, 2, 3]
    by_step = logged(log, "validation/l1")
    assert list(by_step) == list(logged(log, "validation/psnr")) == [2, 3]
    best = load_tokenizer(f"{workdir}@best")
    assert best.fingerprint == load_tokenizer(f"{workdir}@{min(by_step, key=by_step.get)}").fingerprint

    command = ["evaluate", "--checkpoint", f"{workdir}@best", "--data", str(image_folder), "--out", str(out)]
    assert main([*command, "--plugin", str(tmp_path / "own_rows.py")]) == 0
    found = json.loads(out.read_text())["results"]["l1"]
    printed = capsys.readouterr().out
    assert f"l1  {found:.6g}" in printed
    assert "lower is better" in next(line for line in printed.splitlines() if line.split()[:1] == ["l1"])
    pixels = to_float(next(open_images(str(image_folder), size=16).batches(24))["image"])
    decoded = np.asarray(best.decode(best.encode(pixels)))
    np.testing.assert_allclose(found, np.abs(decoded - pixels).mean(), rtol=1e-4)


def test_feature_metrics_say_why_they_are_missing(image_folder):
    @metrics.feature("largest_feature", needs_reference=False, tasks=("images",))
    def largest_feature(features, reference):
        if len(features) < 20:
            raise metrics.NotMeasuredError("it needs 20 images")
        return features.features().max()

    def evaluate(**options):
        images = open_images(str(image_folder), size=16, **options)
        networks = stand_in_features.networks()
        return evaluate_images(images, reference=None, networks=networks, batch_size=24)

    measured = evaluate()
    assert measured.evaluation.results["largest_feature"] == measured.features.features().max()
    assert evaluate(limit=3).evaluation.missing["largest_feature"] == "it needs 20 images"


def test_code_metrics():
    @metrics.code("most_frequent", unit="code")
    def most_frequent(codes):
        return {str(k): float(np.argmax(counts)) for k, counts in enumerate(codes.counts)}

    codes = np.array([3, 0, 3, 1, 0, 0]).reshape(3, 1, 1, 2)
    assert code_results(codes, 4)["most_frequent/0"] == 3
    assert code_results(codes, 4)["most_frequent/1"] == 0
    assert metrics.how_to_read("most_frequent/1") == "code"


@pytest.mark.slow
def test_a_metric_with_a_network_of_its_own(trained_tokenizer, image_folder):
    @metrics.reconstruction("scaled", load=lambda: {"scale": np.float32(2)})
    def scaled(reconstruction, original, *, params):
        return params["scale"] * jnp.ones(len(original))

    tokenizer, images = load_tokenizer(trained_tokenizer), open_images(str(image_folder), size=16, limit=3)
    networks = load_networks(reconstruction_metrics=True)
    evaluation = evaluate_tokenizer(tokenizer, images, reference=None, networks=networks, batch_size=8).evaluation
    assert evaluation.results["scaled"] == 2
    assert evaluation.protocol["scaled"] == {}
    assert "fqgan weights fetch" in evaluation.missing["lpips"]
    evaluation = evaluate_tokenizer(
        tokenizer, images, reference=None, networks=EvaluationNetworks(), batch_size=8
    ).evaluation
    assert evaluation.missing["scaled"] == "its network is not loaded"


def test_a_metric_must_give_a_number_for_each_image(trained_tokenizer, image_folder):
    @metrics.reconstruction("of_the_batch")
    def of_the_batch(reconstruction, original):
        return jnp.mean(reconstruction)

    tokenizer, images = load_tokenizer(trained_tokenizer), open_images(str(image_folder), size=16, limit=3)
    with pytest.raises(UserError, match=r"'of_the_batch' gives an array of shape \(\) .*one number for each"):
        evaluate_tokenizer(tokenizer, images, reference=None, networks=EvaluationNetworks(), batch_size=8)
