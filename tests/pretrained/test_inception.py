"""The Inception network and its resize against the published implementation's numbers (tests/golden/README.md)."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from support import golden_data, golden_inception

from fqgan_jax.errors import UserError
from fqgan_jax.pretrained.inception import Inception, import_inception, load_inception, preprocess, resize


def test_features_of_the_golden_images():
    params = import_inception(golden_inception.state())
    features = jax.jit(Inception().apply)({"params": params}, golden_data.image((2, 299, 299, 3)))
    expected = golden_data.arrays("inception")
    assert golden_data.relative_error(features.pool, expected["pool3"]) < 1e-3
    assert golden_data.relative_error(features.spatial, expected["spatial"].reshape(2, -1)) < 1e-3
    assert golden_data.relative_error(features.logits, expected["logits"]) < 1e-3
    without = expected["logits"] - golden_data.weight("fc.bias", (1008,))
    assert golden_data.relative_error(features.logits_without_bias, without) < 1e-3


def test_resize_of_the_golden_pixels():
    expected = golden_data.arrays("inception")
    resized = resize(jax.numpy.asarray(expected["resize_input"]))
    assert golden_data.relative_error(resized[:, ::13, ::13], expected["resize_output_every13"]) < 1e-4
    scaled = preprocess(jax.numpy.asarray(expected["resize_input"]))
    np.testing.assert_allclose(scaled * 128 + 128, resized, atol=1e-3)


def test_pixels_of_the_right_size_stay_as_they_are():
    pixels = np.random.default_rng(0).integers(0, 256, (1, 299, 299, 3), np.uint8)
    np.testing.assert_array_equal(resize(pixels), pixels)


def test_files_with_pytorchs_counters_and_without_a_layer(tmp_path):
    state = golden_inception.state()
    counters = {"Mixed_5b.branch1x1.bn.num_batches_tracked": np.zeros((), np.int64)}
    save_file(state | counters, tmp_path / "inception.safetensors")
    params = load_inception(tmp_path / "inception.safetensors")
    kernel = state["Mixed_7c.branch3x3dbl_3a.conv.weight"]
    ours = params["Mixed_7c"]["branch3x3dbl_3a"]["conv"]["kernel"]
    np.testing.assert_array_equal(ours, kernel.transpose(2, 3, 1, 0))
    del state["Mixed_6e.branch_pool.bn.running_var"]
    with pytest.raises(UserError, match=r"missing: Mixed_6e\.branch_pool\.bn\.running_var"):
        import_inception(state)


def test_without_a_file_the_cache_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("FQGAN_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="fqgan weights fetch inception-fid"):
        load_inception()
