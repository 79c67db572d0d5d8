"""A run that is continued on another number of devices or another mesh: the same batches, the same losses."""

import shutil

import jax
import numpy as np
import pytest
from support.tiny_configs import PLAIN, tiny_tokenizer_config

from fqgan_jax.sharding.mesh import make_mesh
from fqgan_jax.training import loop
from fqgan_jax.training.logging import read_log
from fqgan_jax.training.tokenizer_task import TokenizerTask

FIELDS = (*PLAIN, "train.log_every=1", "train.evaluate_every=4", "optimizer.ema_decay=0.9")


@pytest.fixture(scope="module")
def on_eight(tmp_path_factory):
    """Work folder of four steps on eight devices, the state in the end, and the batches that were read."""
    whole = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        batches = recorded_batches(patch)
        state = loop.train(tiny_tokenizer_config(*FIELDS, "mesh.fsdp=2"), whole)
    return whole, state, batches


def recorded_batches(patch) -> list[dict]:
    batches, original = [], TokenizerTask.batches

    def recording(self, *arguments):
        for batch in original(self, *arguments):
            batches.append(batch)
            yield batch

    patch.setattr(TokenizerTask, "batches", recording)
    return batches


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "fsdp"), [(2, 2), (8, 8), (4, 1), (2, 1), (1, 1)])
def test_other_meshes_continue_with_the_same_losses(on_eight, tmp_path, monkeypatch, *, devices, fsdp):
    whole, expected, all_batches = on_eight
    workdir = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "4")  # as if it had been killed after step 2
    monkeypatch.setattr(loop, "make_mesh", lambda axes: make_mesh(axes, jax.devices()[:devices]))
    batches = recorded_batches(monkeypatch)
    state = loop.train(tiny_tokenizer_config(*FIELDS, f"mesh.fsdp={fsdp}"), workdir)

    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state.params)} == {devices}
    assert len(batches) >= 2
    for continued, uninterrupted in zip(batches[:2], all_batches[2:4], strict=True):
        jax.tree.map(np.testing.assert_array_equal, continued, uninterrupted)
    lines, expected_lines = ([line for line in read_log(folder) if line["step"] > 2] for folder in (workdir, whole))
    assert [sorted(line) for line in lines] == [sorted(line) for line in expected_lines]
    for line, expected_line in zip(lines, expected_lines, strict=True):
        for name in expected_line.keys() - {"images_per_second", "images_per_second_per_chip"}:
            np.testing.assert_allclose(line[name], expected_line[name], rtol=1e-5, atol=1e-7, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), state.ema, expected.ema)
