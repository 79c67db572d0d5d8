"""The loader beside PyTorch's."""

import numpy as np
import pytest
from PIL import Image

from fqgan_jax.data.sources.folder import ImageFolder
from fqgan_jax.data.stream import Stream
from fqgan_jax.performance import bench_loader

torch = pytest.importorskip("torch")


@pytest.mark.torch
def test_pytorch_serves_squares_of_the_images(tmp_path):
    """Crops of a grey ramp from left to right show 0.8 to all of its width, mirrored half of the time."""
    ramp = np.tile(np.linspace(0, 255, 64), (80, 1)).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    source = ImageFolder(str(tmp_path), "train", validation_fraction=0)
    images = bench_loader.PillowImages(source, 32, floats=False)
    crops = np.stack([images[0][0].numpy().astype(int) for _ in range(100)])
    assert crops.shape == (100, 32, 32, 3)
    spans = crops[:, 16, -1, 0] - crops[:, 16, 0, 0]
    assert 0.7 * 255 < np.abs(spans).min() < 0.85 * 255 < 0.97 * 255 < np.abs(spans).max()
    assert 0.3 < np.mean(spans < 0) < 0.7
    floats = bench_loader.PillowImages(source, 32, floats=True)[0][0]
    assert floats.shape == (3, 32, 32)
    assert -1.01 < float(floats.min()) < -0.5 < 0.5 < float(floats.max()) < 1.01


@pytest.mark.torch
@pytest.mark.slow
def test_rates_and_their_ratios(image_folder, monkeypatch):
    monkeypatch.setattr(bench_loader, "WARM_UP", 1)
    source = ImageFolder(str(image_folder), "train", validation_fraction=0)
    values = bench_loader.bench_loader(
        source, Stream(batch_size=4), image_size=16, num_steps=2, num_torch_workers=1, num_rounds=1
    )
    ratio = values["this loader (images/s)"] / values["PyTorch, uint8 (images/s)"]
    assert values["times as fast as PyTorch, uint8"] == pytest.approx(ratio)
