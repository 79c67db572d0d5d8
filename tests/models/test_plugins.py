"""A quantizer and a head of a file outside the package."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.plugins import restored_tables

from fqgan_jax.config import tokenizer_defaults
from fqgan_jax.config.plugins import load_plugins
from fqgan_jax.config.registry import Registry
from fqgan_jax.errors import UserError
from fqgan_jax.interop import discriminator_entries, infer_fields, published_entries
from fqgan_jax.models.discriminators import Discriminator
from fqgan_jax.models.fields import build_module, identifying_fields, model_kind, module_fields
from fqgan_jax.models.heads import heads
from fqgan_jax.training.from_config import tokenizer_fields

PLUGIN = '''
"""A quantizer without codebooks, and a head of one layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from fqgan_jax.errors import check
from fqgan_jax.models import Head, Quantizer, QuantizerOutput
from fqgan_jax.models.heads import heads
from fqgan_jax.models.quantizers import quantizers


@quantizers("ternary")
class Ternary(Quantizer):
    """Each of d channels is rounded to -1, 0 or 1, so N = 3^d (FSQ, Mentzer et al. 2023)."""

    def __call__(self, latents):
        bounded, codes = jnp.tanh(latents), self.encode(latents)
        entries = self.decode(codes)
        quantized = bounded + jax.lax.stop_gradient(entries - bounded)
        return QuantizerOutput(quantized=quantized, codes=codes, latents=bounded, entries=entries)

    def encode(self, latents):
        digits = 1 + jnp.round(jnp.tanh(latents)).astype(jnp.int32)
        return jnp.sum(digits * 3 ** jnp.arange(self.sizes.code_dim), axis=-1)

    def decode(self, codes):
        return (codes[..., None] // 3 ** jnp.arange(self.sizes.code_dim) % 3 - 1).astype(jnp.float32)


@heads("one_layer")
class OneLayerHead(Head):
    @staticmethod
    def check_sizes(sizes):
        check(sizes.code_dim <= 4, f"A head of one layer has no room for d={sizes.code_dim}.")

    @nn.compact
    def __call__(self, features):
        K, d = self.sizes.num_codebooks, self.sizes.code_dim
        return nn.Dense(K * d, name="to_latents")(features).reshape(*features.shape[:-1], K, d)
'''
FIELDS = {
    "num_codebooks": 3,
    "codebook_size": 81,
    "code_dim": 4,
    "grid": [4, 4],
    "base_width": 8,
    "multipliers": [1, 2],
    "num_blocks": 1,
    "norm_groups": 2,
    "z_channels": 8,
    "feature_widths": [],
    "factorization": "one_layer",
    "quantizer": "ternary",
    "dtype": "float32",
}


@pytest.fixture
def plugin(tmp_path):
    """Adds the rows of the file, for one test."""
    file = tmp_path / "ternary_plugin.py"
    file.write_text(PLUGIN)
    with restored_tables():
        load_plugins([file])
        yield


@pytest.mark.usefixtures("plugin")
def test_it_learns_and_its_codes_come_back():
    module = build_module("tokenizer", FIELDS)
    images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3), minval=-1)

    @jax.jit
    def everything():
        params = module.init(jax.random.key(1), images)["params"]

        def loss(params):
            output = module.apply({"params": params}, images)
            return jnp.sum((output.reconstruction - images) ** 2), output

        grads, output = jax.grad(loss, has_aux=True)(params)
        codes = module.apply({"params": params}, images, method="encode")
        return grads, output, codes, module.apply({"params": params}, codes, method="decode")

    grads, output, codes, decoded = everything()
    assert "quantizer" not in grads  # it has no parameters
    assert not [path for path, leaf in jax.tree_util.tree_leaves_with_path(grads) if not np.any(leaf)]
    assert codes.shape == (2, 4, 4, 3)
    assert codes.min() >= 0
    assert codes.max() < 81
    assert output.quantizer.token_entropy is None
    assert output.quantizer.mean_probability is None
    np.testing.assert_array_equal(codes, output.quantizer.codes)
    np.testing.assert_allclose(decoded, output.reconstruction, atol=1e-5)


@pytest.mark.usefixtures("plugin")
def test_its_names_are_saved_and_count_in_the_fingerprint():
    module = build_module("tokenizer", FIELDS)
    assert build_module("tokenizer", json.loads(json.dumps(module_fields(module)))) == module
    assert identifying_fields(module)["quantizer"] == "ternary"
    published = module.clone(quantizer="vq", factorization="adapters")
    assert "quantizer" not in identifying_fields(published)
    assert module_fields(published)["quantizer"] == "vq"


@pytest.mark.usefixtures("plugin")
def test_a_config_chooses_it_and_it_checks_its_sizes():
    config = tokenizer_defaults()
    config.model.quantizer, config.model.factorization, config.model.code_dim = "ternary", "one_layer", 4
    assert tokenizer_fields(config)["quantizer"] == "ternary"
    config.model.code_dim = 5
    with pytest.raises(UserError, match="no room for d=5"):
        tokenizer_fields(config)


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("fields", "message"),
    [({}, "head 'one_layer' has no published"), ({"factorization": "split"}, "quantizer 'ternary' has no published")],
)
def test_without_published_names_it_is_not_published(fields, message):
    with pytest.raises(UserError, match=message):
        published_entries(build_module("tokenizer", FIELDS | fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"quantizer": "ternary"}, "model.quantizer is 'ternary': there is no quantizer 'ternary'.*--plugin"),
        ({"quantizer": "vqq"}, "no quantizer 'vqq'; did you mean 'vq'"),
        (
            {"quantizer": "vq", "factorization": "one_layer"},
            "model.factorization is 'one_layer': .*adapters, split.*--plug",
        ),
        ({"quantiser": "vq"}, "A tokenizer has no field 'quantiser'; did you mean 'quantizer'.*update fqgan_jax"),
    ],
)
def test_an_unknown_row_or_field_is_refused_by_name(fields, message):
    fields = FIELDS | {"factorization": "split", "quantizer": "vq"} | fields
    with pytest.raises(UserError, match=message):
        build_module("tokenizer", fields)


def test_an_unknown_kind_of_model_is_refused_by_name():
    with pytest.raises(UserError, match="no kind of model 'tokeniser'; did you mean 'tokenizer'"):
        build_module("tokeniser", FIELDS)
    with pytest.raises(UserError, match="kind of model 'captioner' has no published tensor names"):
        infer_fields("captioner", {})
    with pytest.raises(UserError, match="Discriminator is no kind of model"):
        model_kind(Discriminator())


def test_a_discriminator_without_published_names_is_not_published():
    with pytest.raises(UserError, match="Discriminator has no published tensor names"):
        discriminator_entries(Discriminator(), 32)


def test_rows_are_found_by_the_tables_of_the_class():
    module_class = type(build_module("tokenizer", FIELDS | {"factorization": "split", "quantizer": "vq"}))
    names = {field.name for field in dataclasses.fields(module_class)}
    assert module_class.tables.keys() <= names
    assert all(isinstance(table, Registry) for table in module_class.tables.values())


@pytest.mark.usefixtures("plugin")
def test_a_head_of_another_shape_is_named(monkeypatch):
    monkeypatch.setattr(heads["one_layer"], "__call__", lambda _, features: features)
    images = jnp.zeros((2, 8, 8, 3))
    with pytest.raises(UserError, match=r"head 'one_layer' returns latents \[2, 4, 4, 16\]: .* here \[2, 4, 4, 3, 4\]"):
        jax.eval_shape(build_module("tokenizer", FIELDS).init, jax.random.key(0), images)
