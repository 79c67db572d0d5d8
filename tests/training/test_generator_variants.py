"""Order annealing, embeddings from the tokenizer, the first sub-codebooks alone: a generator's training options."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import small_far
from support.tiny_configs import tiny_generator_config, tiny_tokenizer_config

import fqgan_jax
from fqgan_jax.caches.codes import VALIDATION, CodeCache
from fqgan_jax.caches.tokenize import tokenize_splits
from fqgan_jax.caches.write_shards import PassSettings
from fqgan_jax.data.sources import open_source
from fqgan_jax.errors import UserError
from fqgan_jax.export.exporting import export_checkpoint
from fqgan_jax.losses.generator_losses import next_code_loss
from fqgan_jax.training import train
from fqgan_jax.training.generator_step import GeneratorTraining, generator_step, permuted_share, random_order
from fqgan_jax.training.generator_task import GeneratorTask
from fqgan_jax.training.logging import read_log
from fqgan_jax.training.optimizers import OptimizerSettings, make_tx
from fqgan_jax.training.state import create_state


def test_the_share_of_permuted_examples_falls_linearly():
    shares = [float(permuted_share(jnp.int32(step), (10, 20))) for step in (0, 10, 13, 20, 99)]
    np.testing.assert_allclose(shares, [1, 1, 0.7, 0, 0], rtol=1e-6)
    assert float(permuted_share(jnp.int32(4), (5, 5))) == 1
    assert float(permuted_share(jnp.int32(5), (5, 5))) == 0


def test_orders_are_permutations_of_as_many_examples_as_asked():
    order = np.asarray(random_order(jax.random.key(0), (2000, 6), share=jnp.float32(0.3)))
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(6), (2000, 1)))
    permuted = (order != np.arange(6)).any(axis=1)
    assert permuted.mean() == pytest.approx(0.3 * (1 - 1 / 720), abs=0.04)
    # Every place is as likely for every position.
    counts = np.stack([np.bincount(order[permuted, place], minlength=6) for place in range(6)])
    np.testing.assert_allclose(counts / permuted.sum(), 1 / 6, atol=0.06)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_loss_of_a_step_is_that_of_the_permuted_examples(share):
    module, params, codes, labels = small_far.random_far(num_codebooks=2, target_positions=True, dropout=0.0)
    labels = jnp.array([0, 4, 2])
    training = GeneratorTraining(
        module=module,
        tx=make_tx(OptimizerSettings(total_steps=5, learning_rate=1e-3)),
        loss_weights={"next_code": 1.0},
        class_dropout=0.0,
        order_annealing=(5, 6) if share else (0, 0),
    )
    state = create_state(params, training.tx, with_ema=False)
    batch = {"codes": codes.reshape(3, 3, 4, 2), "label": labels}
    _, metrics = jax.jit(lambda state, batch: generator_step(state, batch, training=training))(state, batch)
    key = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))[1]
    order = random_order(key, (3, 12), share=jnp.float32(share))
    assert bool((order != jnp.arange(12)).any()) == bool(share)
    permuted = jnp.take_along_axis(codes, order[..., None], axis=1)
    logits = module.apply({"params": params}, permuted, labels, order=order)
    np.testing.assert_allclose(metrics["next_code"], next_code_loss(logits=logits, codes=permuted), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("prediction", ["parallel", "flattened", "delayed"])
def test_every_prediction_trains_resumes_and_samples(prediction, code_cache, tmp_path):
    fields = [f"data.codes={code_cache}", f"model.prediction={prediction}", "train.checkpoint_every=1"]
    if prediction != "delayed":
        fields.append("order_annealing=(1,3)")
    config = tiny_generator_config(*fields)
    whole = train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", stop_after=2)
    resumed = train(config, tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    generator = fqgan_jax.load_generator(tmp_path / "whole")
    assert generator.module.prediction == prediction
    assert generator.sample([0, 1], key=jax.random.key(0)).shape == (2, *generator.module.grid, 2)
    held_out = [line["validation/next_code"] for line in read_log(tmp_path / "whole") if "validation/next_code" in line]
    assert len(held_out) == 1
    assert 0 < held_out[0] < 10
    assert (tmp_path / "whole" / "pictures" / "held_out.png").exists()


def test_delayed_sub_codebooks_are_not_permuted(code_cache):
    with pytest.raises(UserError, match=r"order_annealing=.*needs them row by row"):
        GeneratorTask(
            tiny_generator_config(f"data.codes={code_cache}", "model.prediction=delayed", "order_annealing=(1,3)"), 8
        )
    with pytest.raises(UserError, match="two steps in order"):
        GeneratorTask(tiny_generator_config(f"data.codes={code_cache}", "order_annealing=(3,1)"), 8)
    with pytest.raises(UserError, match=r"no prediction of codes 'paralel'.*did you mean 'parallel'"):
        GeneratorTask(tiny_generator_config(f"data.codes={code_cache}", "model.prediction=paralel"), 8)


@pytest.mark.slow
def test_embeddings_begin_with_the_tokenizers_entries(code_cache, trained_tokenizer, tmp_path):
    fields = [f"data.codes={code_cache}", "model.embeddings=codebook"]
    with pytest.raises(UserError, match=r"name it with sample\.tokenizer"):
        GeneratorTask(tiny_generator_config(*fields), 8)
    fields += [f"sample.tokenizer={trained_tokenizer}", "train.freeze=('code_entries',)", "sample.per_class=1"]
    state = train(tiny_generator_config(*fields), tmp_path / "run")
    entries = np.asarray(fqgan_jax.load_tokenizer(trained_tokenizer).params["quantizer"]["codebooks"])
    unit = entries / np.linalg.norm(entries, axis=-1, keepdims=True)  # of mean square length 1 already
    np.testing.assert_allclose(state.params["code_entries"], unit, rtol=1e-5)
    generator = fqgan_jax.load_generator(tmp_path / "run")
    exported = tmp_path / "export"
    export_checkpoint(str(tmp_path / "run"), "safetensors", exported)
    again = fqgan_jax.load_generator(exported / "model.safetensors")
    codes = np.asarray(CodeCache(code_cache)[0][1][:1], np.int32)
    np.testing.assert_allclose(again.logits(codes, [1]), generator.logits(codes, [1]), atol=1e-5)


@pytest.mark.slow
def test_a_generator_of_the_first_sub_codebooks(image_folder, tmp_path):
    """The cache holds all codes of a nested tokenizer."""
    fields = ("model.factorization=split", "model.z_channels=24", "model.nested=(0.5,)")
    train(tiny_tokenizer_config(*fields, f"data.source={image_folder}", k=3), tmp_path / "tokenizer")
    tokenizer = fqgan_jax.load_tokenizer(tmp_path / "tokenizer")
    sources = {split: open_source(str(image_folder), split) for split in ("train", "validation")}
    tokenize_splits(tokenizer, sources, tmp_path / "codes", crops="center", settings=PassSettings())
    fields = (f"data.codes={tmp_path / 'codes'}", "data.codebooks=2", "sample.per_class=1")
    with pytest.raises(UserError, match=r"data\.codebooks=2 needs sample\.tokenizer"):
        GeneratorTask(tiny_generator_config(*fields), 8)
    fields += (f"sample.tokenizer={tmp_path / 'tokenizer'}",)
    train(tiny_generator_config(*fields), tmp_path / "generator")
    generator = fqgan_jax.load_generator(tmp_path / "generator")
    assert generator.module.num_codebooks == 2
    assert generator.tokenizer == tokenizer.first(2).fingerprint
    assert generator.check_tokenizer(tokenizer).module.num_codebooks == 2
    assert json.loads((tmp_path / "codes" / VALIDATION / "codes.json").read_text())["num_codebooks"] == 3
    with pytest.raises(UserError, match="holds 3 sub-codebooks"):
        GeneratorTask(tiny_generator_config(*fields, "data.codebooks=4"), 8)
