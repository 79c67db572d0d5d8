"""Published names and layouts: every name and shape, both directions, any K, and what is said when they do not fit."""

from functools import cache

import jax
import numpy as np
import pytest
from flax import traverse_util
from support import golden_data

from fqgan_jax.errors import UserError
from fqgan_jax.interop import (
    export_params,
    import_params,
    infer_generator_fields,
    infer_tokenizer_fields,
    published_entries,
)
from fqgan_jax.models.far import FAR
from fqgan_jax.models.fqgan import FQGAN

TOKENIZERS = ["dual_f16", "dual_f8", "triple_f16", "triple_f8", "trajectory"]
GENERATORS = ["far_dual_tiny", "far_triple_tiny", "far_dual_B", "far_triple_B", "far_dual_L", "far_triple_L"]
# Millions of parameters (specification, section 1): without and with feature heads.
TOKENIZER_PARAMETERS = {
    "dual_f16": (111.29, 150.41),
    "dual_f8": (110.31, 150.21),
    "triple_f16": (131.66, 159.30),
    "triple_f8": (131.06, 159.59),
}
GENERATOR_PARAMETERS = {"far_dual_B": 417.1, "far_triple_B": 451.7, "far_dual_L": 901.2, "far_triple_L": 944.8}


def small_tokenizer(num_codebooks: int, **fields) -> FQGAN:
    return FQGAN(
        num_codebooks=num_codebooks,
        codebook_size=12,
        code_dim=4,
        grid=(4, 4),
        base_width=8,
        multipliers=(1, 2),
        num_blocks=1,
        z_channels=8,
        adapter_depth=2,
        feature_depth=1,
        feature_widths=(None, *(8 * (1 + k % 2) for k in range(1, num_codebooks))),
        **fields,
    )


def small_generator(num_codebooks: int) -> FAR:
    return FAR(
        num_codebooks=num_codebooks,
        codebook_size=12,
        num_classes=3,
        grid=(4, 4),
        width=16,
        depth=2,
        num_heads=2,
        head_depth=1,
        swiglu_multiple=16,
    )


def random_state(entries) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {entry.name: rng.standard_normal(entry.shape, np.float32) for entry in entries}


def shapes_of(state) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in state.items()}


def assert_identical(first: dict[str, np.ndarray], second: dict[str, np.ndarray]):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name, strict=True)


@cache
def entries_of(name: str):
    """Entries of the model that is inferred from a published state dict's shapes."""
    shapes = golden_data.shapes(name)
    if name in GENERATORS:
        return published_entries(FAR(**infer_generator_fields(shapes, num_heads=4 if "tiny" in name else None)))
    return published_entries(FQGAN(**infer_tokenizer_fields(shapes)))


def millions(entries) -> float:
    return sum(int(np.prod(entry.shape)) for entry in entries) / 1e6


@pytest.mark.parametrize("name", TOKENIZERS + GENERATORS)
def test_names_and_shapes(name):
    published = golden_data.shapes(name)
    model = {tensor: shape for tensor, shape in published.items() if not tensor.endswith("codebook_used")}
    assert {entry.name: entry.shape for entry in entries_of(name)} == model


@pytest.mark.parametrize("name", TOKENIZER_PARAMETERS)
def test_tokenizer_parameters(name):
    entries = entries_of(name)
    without = [entry for entry in entries if not entry.path.startswith("feature_predictors")]
    assert (round(millions(without), 2), round(millions(entries), 2)) == TOKENIZER_PARAMETERS[name]


@pytest.mark.parametrize("name", GENERATOR_PARAMETERS)
def test_generator_parameters(name):
    assert round(millions(entries_of(name)), 1) == GENERATOR_PARAMETERS[name]


def test_published_tokenizer_fields():
    assert infer_tokenizer_fields(golden_data.shapes("triple_f8")) == {
        "num_codebooks": 3,
        "codebook_size": 16384,
        "code_dim": 8,
        "grid": (32, 32),
        "base_width": 128,
        "multipliers": (1, 2, 2, 4),
        "num_blocks": 2,
        "z_channels": 256,
        "factorization": "adapters",
        "adapter_depth": 6,
        "adapter_heads": 8,
        "feature_widths": (None, 384, 768),
        "feature_depth": 3,
        "feature_heads": 8,
        "normalized": True,
    }


def test_published_generator_fields():
    assert infer_generator_fields(golden_data.shapes("far_dual_L")) == {
        "num_codebooks": 2,
        "codebook_size": 16384,
        "num_classes": 1000,
        "grid": (16, 16),
        "width": 1280,
        "depth": 36,
        "num_heads": 20,
        "head_depth": 4,
        "dropout": 0.1,
        "swiglu_multiple": 256,
    }


def test_published_tensors_survive_the_round_trip():
    state = golden_data.state_dict("trajectory")
    module = FQGAN(**infer_tokenizer_fields(shapes_of(state), adapter_heads=4, feature_heads=4))
    params = import_params(state, module)
    exported = export_params(params, module)
    assert_identical({name: exported[name] for name in state}, state)
    buffers = {name: tensor for name, tensor in exported.items() if name not in state}
    assert shapes_of(buffers) == {"quantize_vis.codebook_used": (65536,), "quantize_sem.codebook_used": (65536,)}
    assert not any(tensor.any() for tensor in buffers.values())
    again = import_params(exported, module)
    assert_identical(traverse_util.flatten_dict(again, sep="/"), traverse_util.flatten_dict(params, sep="/"))


@pytest.mark.parametrize(
    ("num_codebooks", "factorization"),
    [(1, "adapters"), (2, "adapters"), (3, "adapters"), (5, "adapters"), (1, "split"), (5, "split")],
)
def test_any_tokenizer_survives_the_round_trip(num_codebooks, factorization):
    module = small_tokenizer(num_codebooks, factorization=factorization)
    entries = published_entries(module)
    state = random_state(entries)
    exported = export_params(import_params(state, module), module)
    assert len(exported) == len(state) + num_codebooks
    assert_identical({name: exported[name] for name in state}, state)
    inferred = FQGAN(**infer_tokenizer_fields(shapes_of(exported), grid=module.grid))
    assert published_entries(inferred) == entries


@pytest.mark.parametrize("num_codebooks", [1, 3, 11])
def test_any_generator_survives_the_round_trip(num_codebooks):
    module = small_generator(num_codebooks)
    state = random_state(published_entries(module))
    assert_identical(export_params(import_params(state, module), module), state)
    assert FAR(**infer_generator_fields(shapes_of(state), num_heads=2, grid=(4, 4))) == module


def test_imported_parameters_are_those_of_the_module():
    module = small_tokenizer(3)
    params = import_params(random_state(published_entries(module)), module)
    images = jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)
    expected = jax.eval_shape(module.init, jax.random.key(0), images)["params"]
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), expected
    )


def test_sub_codebooks_are_not_mixed_up():
    """Visual first, then semantic by level; block 1 is block 1."""
    module = small_tokenizer(3)
    state = random_state(published_entries(module))
    params = import_params(state, module)
    for k, name in enumerate(["vis", "sem_mid", "sem_high"]):
        np.testing.assert_array_equal(params["quantizer"]["codebooks"][k], state[f"quantize_{name}.embedding.weight"])
    kernels = params["heads"]["heads"]["adapter"]["transformer"]["blocks"]["mlp_in"]["kernel"]
    published = state["encoder.semantic_head_high.0.transformer.1.mlp.c_fc.weight"]
    np.testing.assert_array_equal(kernels[2, 1], published.T)
    kernel = params["encoder"]["conv_in"]["kernel"]
    np.testing.assert_array_equal(kernel[0, 2, 1, 5], state["encoder.conv_in.weight"][5, 1, 0, 2])


def test_half_precision_becomes_float32():
    module = small_generator(2)
    state = {name: tensor.astype(np.float16) for name, tensor in random_state(published_entries(module)).items()}
    params = import_params(state, module)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}


class TestErrors:
    def test_tensors_that_do_not_fit(self):
        module = small_generator(2)
        state = random_state(published_entries(module))
        del state["norm.weight"]
        state["output_1.weight"] = state["output_1.weight"][:-1]
        state["head.bias"] = np.zeros(1)
        with pytest.raises(UserError) as error:
            import_params(state, module)
        lines = str(error.value).splitlines()
        assert lines[1:4] == [
            "  1 missing: norm.weight",
            "  1 unexpected: head.bias",
            "  1 of another shape: output_1.weight (11, 16), not (12, 16)",
        ]

    def test_at_most_ten_names(self):
        module = small_tokenizer(2)
        state = random_state(published_entries(module))
        state = {name: tensor for name, tensor in state.items() if not name.startswith("decoder.")}
        with pytest.raises(UserError, match=r"\d+ missing: (decoder\.\S+, ){9}decoder\.\S+ and \d+ more\n"):
            import_params(state, module)

    def test_usage_buffer_of_an_unknown_quantizer_is_not_ignored(self):
        module = small_tokenizer(2)
        state = random_state(published_entries(module)) | {"quantize_sem_high.codebook_used": np.zeros(65536)}
        with pytest.raises(UserError, match=r"1 unexpected: quantize_sem_high\.codebook_used"):
            import_params(state, module)

    def test_other_models(self):
        with pytest.raises(UserError, match=r"no checkpoint of a tokenizer.*quantize_vis\.embedding\.weight"):
            infer_tokenizer_fields(golden_data.shapes("far_dual_tiny"))
        with pytest.raises(UserError, match=r"no checkpoint of a FAR generator.*tok_embeddings_1\.weight"):
            infer_generator_fields(golden_data.shapes("dual_f16"))
        with pytest.raises(UserError, match="none"):
            infer_generator_fields({})
        with pytest.raises(UserError, match=r"post_quant_conv\.weight has shape \(256,\), not 4 axes"):
            infer_tokenizer_fields(golden_data.shapes("dual_f16") | {"post_quant_conv.weight": (256,)})

    def test_no_levels(self):
        shapes = golden_data.shapes("dual_f16")
        shapes = {name: shape for name, shape in shapes.items() if not name.startswith("encoder.conv_blocks.")}
        with pytest.raises(UserError, match=r"no tensor encoder\.conv_blocks\.0\.res\.0\.conv1\.weight"):
            infer_tokenizer_fields(shapes)

    def test_width_that_is_no_multiple(self):
        shapes = golden_data.shapes("dual_f16") | {"encoder.conv_in.weight": (96, 3, 3, 3)}
        with pytest.raises(UserError, match="first width 96"):
            infer_tokenizer_fields(shapes)

    def test_head_count_that_does_not_fit_the_width(self):
        with pytest.raises(UserError, match="num_heads=3 does not split width 64"):
            infer_generator_fields(golden_data.shapes("far_dual_tiny"), num_heads=3)

    def test_unknown_head_count(self):
        with pytest.raises(UserError, match=r"width 64 .*16 for width 1024.*num_heads"):
            infer_generator_fields(golden_data.shapes("far_dual_tiny"))

    def test_grid_that_does_not_fit_the_positions(self):
        with pytest.raises(UserError, match=r"256 learned positions.*8 x 16.*grid="):
            infer_tokenizer_fields(golden_data.shapes("dual_f16"), grid=(8, 16))

    def test_hidden_width_below_the_rule(self):
        shapes = golden_data.shapes("far_dual_tiny") | {"layers.0.feed_forward.w1.weight": (100, 64)}
        with pytest.raises(UserError, match="hidden width of 100"):
            infer_generator_fields(shapes, num_heads=4)
