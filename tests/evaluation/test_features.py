"""Inception as evaluations use it: from the cache or a file, with the published file's hash."""

import dataclasses

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from support import golden_inception
from support.rows import replace_row

from fqgan_jax.evaluation.features import load_inception_network
from fqgan_jax.files import sha256_of
from fqgan_jax.pretrained.fetching import fetch
from fqgan_jax.pretrained.weights import networks


@pytest.mark.slow
def test_the_caches_network_is_the_published_files(tmp_path, monkeypatch):
    monkeypatch.setenv("FQGAN_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "published.safetensors"
    save_file(golden_inception.state(), file)
    row = dataclasses.replace(networks["inception-fid"], sha256=sha256_of(file)[:8])
    replace_row(monkeypatch, networks, "inception-fid", row)
    fetch("inception-fid", file)
    cached, given = load_inception_network(), load_inception_network(file)
    assert cached.sha256 == given.sha256 == sha256_of(file)
    jax.tree.map(np.testing.assert_array_equal, cached.params, given.params)
