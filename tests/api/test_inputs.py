"""Wrong inputs of tokenizers and generators are refused by a sentence, before anything is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_models import tiny_generator, tiny_tokenizer

from fqgan_jax.errors import UserError

TOKENIZER = tiny_tokenizer(2)  # f = 2, 12 entries, a grid of 4 x 4
GENERATOR = tiny_generator(2)  # 3 classes, the same codes
KEY = jax.random.key(0)
ON = pytest.mark.parametrize("on", [np.asarray, jnp.asarray], ids=["host", "device"])


def images(*shape: int, value=0, dtype=np.float32) -> np.ndarray:
    return np.full(shape or (1, 8, 8, 3), value, dtype)


def codes(*shape: int, value=0, dtype=np.int32) -> np.ndarray:
    return np.full(shape or (1, 4, 4, 2), value, dtype)


@ON
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (images(1, 16, 17, 3, dtype=np.uint8), r"divisible by 2, not \[1, 16, 17, 3\]"),
        (images(8, 8, 3), r"must be \[B, H, W, 3\], not \[8, 8, 3\]"),
        (images(1, 8, 8, 4), r"must be \[B, H, W, 3\]"),
        (images(1, 0, 8, 3), r"must be \[B, H, W, 3\]"),
        (images(dtype=np.int32), r"must be uint8 in \[0, 255\] or floats in \[-1, 1\], not int32"),
        (images(value=255), r"must lie in \[-1, 1\], these lie in \[255, 255\]"),
        (images(value=-np.inf), r"these lie in \[-inf, -inf\]"),
        (images(value=np.nan), "hold NaN"),
    ],
)
def test_images(on, images, message):
    for method in (TOKENIZER.encode, TOKENIZER.latents):
        with pytest.raises(UserError, match=message):
            method(on(images))


@ON
def test_one_value_out_of_range_is_found(on):
    for value, message in ((1.1, r"these lie in \[0, 1\.1\]"), (np.nan, "hold NaN")):
        one = images()
        one[0, 3, 2, 1] = value
        with pytest.raises(UserError, match=message):
            TOKENIZER.encode(on(one))


@ON
@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (codes(1, 4, 4, 3), r"must have 2 sub-codebooks in their last axis; .* \[1, 4, 4, 3\]"),
        (codes(1, 16, 2), r"must be \[B, h, w, 2\], not \[1, 16, 2\]"),
        (codes(1, 0, 4, 2), r"must be \[B, h, w, 2\]"),
        (codes(dtype=np.float32), "must be integers, not float32"),
        (codes(dtype=np.bool_), "must be integers, not bool"),
        (codes(value=12), "between 0 and 11; these lie between 12 and 12"),
        (codes(value=-1), "between 0 and 11; these lie between -1 and -1"),
    ],
)
def test_codes_of_a_tokenizer(on, codes, message):
    with pytest.raises(UserError, match=message):
        TOKENIZER.decode(on(codes))


def test_a_tokenizer_takes_other_grids():
    assert TOKENIZER.encode(images(1, 4, 12, 3)).shape == (1, 2, 6, 2)
    assert TOKENIZER.decode(codes(1, 2, 6, 2)).shape == (1, 4, 12, 3)
    np.testing.assert_array_equal(TOKENIZER.decode(codes(dtype=np.uint16)), TOKENIZER.decode(codes()))


@ON
@pytest.mark.parametrize(
    ("codes", "labels", "message"),
    [
        (codes(1, 2, 2, 2), [0], r"grid is 4 x 4: .* \[B, 16, 2\], not \[1, 2, 2, 2\]"),
        (codes(1, 2, 8, 2), [0], "grid is 4 x 4"),  # as many positions
        (codes(1, 4, 2), [0], "grid is 4 x 4"),
        (codes(1, 4, 4, 1), [0], "must have 2 sub-codebooks"),
        (codes(value=12), [0], "Codes must lie between 0 and 11"),
        (codes(), [0, 1], "2 labels for the codes of 1 images"),
        (codes(), [3], "Labels must lie between 0 and 2; these lie between 3 and 3"),
        (codes(), [-1], "Labels must lie between 0 and 2"),
        (codes(), [0.5], "Labels must be integers, not float"),
        (codes(), [[0]], r"Labels must be \[B\]"),
    ],
)
def test_codes_and_labels_of_a_generator(on, codes, labels, message):
    with pytest.raises(UserError, match=message):
        GENERATOR.logits(on(codes), on(labels))
    if "Labels" in message:
        for method in (GENERATOR.check_labels, lambda labels: GENERATOR.sample(labels, key=KEY)):
            with pytest.raises(UserError, match=message):
                method(on(labels))


def test_codes_of_a_generator_are_a_grid_or_a_sequence():
    grid = np.random.default_rng(0).integers(0, 12, (2, 4, 4, 2))
    logits = GENERATOR.logits(grid, [0, 2])
    np.testing.assert_array_equal(logits, GENERATOR.logits(grid.reshape(2, 16, 2), [0, 2]))


@pytest.mark.parametrize("key", [0, np.uint32([0, 1]), jnp.float32([0, 1]), jax.random.split(KEY)])
def test_keys(key):
    with pytest.raises(UserError, match=r"must be one key of jax\.random\.key\(seed\)"):
        GENERATOR.sample([0], key=key)


def test_sampling_options():
    with pytest.raises(UserError, match="guidance has 3 values for 2 sub-codebooks"):
        GENERATOR.sample([0], key=KEY, guidance=[1, 2, 3])


def test_class_names():
    assert GENERATOR.class_name(np.int64(2)) == "cat"
    for label in (3, -1):
        with pytest.raises(UserError, match="Labels must lie between 0 and 2"):
            GENERATOR.class_name(label)


def test_a_generator_knows_its_tokenizer():
    with pytest.raises(UserError, match="not to a Generator"):
        GENERATOR.check_tokenizer(GENERATOR)
    with pytest.raises(UserError, match="codes of another tokenizer"):
        GENERATOR.check_tokenizer(TOKENIZER)


def test_only_shapes_and_types_are_checked_while_jax_traces():
    encode = jax.jit(TOKENIZER.encode)
    assert encode(images(value=7)).shape == (1, 4, 4, 2)
    np.testing.assert_array_equal(encode(images(value=0.5)), TOKENIZER.encode(images(value=0.5)))
    with pytest.raises(UserError, match="must have 2 sub-codebooks"):
        jax.jit(TOKENIZER.decode)(codes(1, 4, 4, 3))
    sample = jax.jit(lambda labels: GENERATOR.sample(labels, key=KEY))
    np.testing.assert_array_equal(sample(np.array([1])), GENERATOR.sample([1], key=KEY))


def test_a_model_is_not_saved_over_a_run_or_a_file(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="is the work folder of a run"):
        TOKENIZER.save(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoints"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file cannot be written: File exists"):
        TOKENIZER.save(tmp_path / "file")
