"""More sub-codebooks reconstruct better: the project's reason to exist, on held-out crops."""

import jax
import numpy as np
import pytest

from fqgan_jax.config import load_config
from fqgan_jax.training import metrics
from fqgan_jax.training.tokenizer_task import TokenizerTask


def held_out_psnr(k: int, steps: int) -> float:
    """Trains K sub-codebooks without a teacher on the bundled photographs; everything else equal."""
    tiny = {"data.image_size": 32, "data.batch_size": 16, "model.base_width": 16, "model.multipliers": "(1,2)"}
    tiny |= {"model.codebook_size": 16, "model.z_channels": 32, "optimizer.learning_rate": 3e-3, "train.steps": steps}
    tiny |= {"teachers": (None,) * k}
    config = load_config(f"configs/demo_tokenizer.py:k={k}", [f"--config.{name}={v}" for name, v in tiny.items()])
    task = TokenizerTask(config)
    state, step, batches = jax.jit(task.init)(jax.random.key(0)), jax.jit(task.step), task.batches(0, (0, 1))
    for _ in range(steps):
        state, _ = step(state, next(batches))
    collected = [task.evaluate(state.params, batch)[0] for batch in task.evaluation_batches()]
    total = collected[0]
    for each in collected[1:]:
        total = metrics.merge(total, each)
    return metrics.compute(total)["psnr"]


@pytest.mark.slow
def test_two_sub_codebooks_beat_one():
    one, two = (held_out_psnr(k, steps=150) for k in (1, 2))
    print(f"\nheld-out PSNR after 150 steps, N = 16: K = 1 {one:.2f} dB, K = 2 {two:.2f} dB")
    assert np.isfinite(one)
    assert two > one + 0.5
