"""One measurement on several numbers of devices, in batches of several sizes."""

import jax
import numpy as np

from fqgan_jax.sharding import passes
from fqgan_jax.sharding.mesh import make_mesh


def each_layout(monkeypatch):
    """Devices and batch sizes: one that divides nothing, one larger than everything."""
    for count, batch_size in ((8, 5), (1, 7), (1, 500)):
        monkeypatch.setattr(passes, "make_mesh", lambda axes, count=count: make_mesh(axes, jax.devices()[:count]))
        yield batch_size


def assert_same(all_results):
    for results in all_results[1:]:
        assert results.keys() == all_results[0].keys()
        # A pixel in thousands may round to its neighbour where a batch is laid out otherwise.
        np.testing.assert_allclose(list(results.values()), list(all_results[0].values()), rtol=1e-4, atol=1e-5)
