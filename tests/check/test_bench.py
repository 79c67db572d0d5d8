"""Headline times: what is measured, and what is said of what does not fit. The benchmarks have their own tests."""

from unittest.mock import create_autospec

import jax
import pytest

from fqgan_jax.check import bench


def test_times_are_named_and_what_does_not_fit_is_too(monkeypatch):
    values = {"compilation (s)": 9.0, "median (s)": 0.5, "images/s a device": 32.0}
    too_large = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
    for name, result in {
        "bench_training": {"side_effect": [values, too_large]},
        "bench_inference": {"return_value": values},
        "bench_sampling": {"return_value": {"batch 1: median (s)": 0.1}},
    }.items():
        monkeypatch.setattr(bench, name, create_autospec(getattr(bench, name), **result))
    times = dict(bench.headline_times())
    assert times["demo tokenizer's step, median (s)"] == 0.5
    assert times["demo generator's step, median (s)"] == "does not fit into memory"
    assert times["demo encode, images/s a device"] == times["demo decode, images/s a device"] == 32.0
    assert times["demo sample, batch 1: median (s)"] == 0.1
    assert not any("compilation" in name for name in times)
    assert bench.bench_inference.call_args.args[1] == 16 * jax.device_count()


def test_other_errors_are_raised(monkeypatch):
    broken = create_autospec(bench.bench_training, side_effect=jax.errors.JaxRuntimeError("INTERNAL: broken"))
    monkeypatch.setattr(bench, "bench_training", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="broken"):
        list(bench.headline_times())
