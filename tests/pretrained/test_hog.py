"""The HOG teacher sees orientations."""

import numpy as np

from fqgan_jax.pretrained.hog import CELLS, ORIENTATIONS, WIDTH, hog_features


def test_stripes_fill_the_bin_of_their_gradient():
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[(np.arange(32) // 4) % 2 == 1] = 255
    by_row, by_column = hog_features(stripes), hog_features(stripes.transpose(1, 0, 2))
    assert by_row.shape == (WIDTH,)
    assert by_row.dtype == np.float32
    np.testing.assert_allclose(by_row.mean(), 0, atol=1e-6)

    def strongest(features):
        return set(features.reshape(CELLS * CELLS, ORIENTATIONS).argmax(-1))

    # Gradients of horizontal stripes stand at 90 degrees, the fourth of six bins; of vertical ones at 0.
    assert strongest(by_row) == {ORIENTATIONS // 2}
    assert strongest(by_column) == {0}
