"""The recipe behind the golden files: weights and images that anyone can draw again.

Every tensor is drawn from a generator seeded by the golden set's seed (`meta.json`) and by the
tensor's own name in the published checkpoint layout, so a test needs no stored weights.
"""

import zlib

import numpy as np


def golden_weight(name, shape, seed=0):
    """Weight of the given published name and shape (float32, shape as in the state dict)."""
    rng = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    noise = rng.standard_normal(shape, dtype=np.float32)
    if name.endswith("running_var"):
        return 1.0 + 0.1 * np.abs(noise)
    if name.endswith("running_mean"):
        return 0.1 * noise
    if len(shape) >= 2:
        return noise / np.sqrt(np.prod(shape[1:]), dtype=np.float32)
    if name.endswith("weight"):
        return 1.0 + 0.1 * noise
    return 0.05 * noise


def golden_image(shape, seed=0):
    """Smooth image batch in [-1, 1], shape (batch, height, width, channels), float32."""
    b, h, w, c = shape
    rng = np.random.Generator(np.random.PCG64([seed, 7]))
    y, x = np.meshgrid(np.linspace(0, 1, h), np.linspace(0, 1, w), indexing="ij")
    out = np.zeros(shape)
    for _ in range(12):
        fy, fx = rng.uniform(0, 24, (2, b, 1, 1, c))
        phase = rng.uniform(0, 2 * np.pi, (b, 1, 1, c))
        amplitude = rng.uniform(0.05, 0.4, (b, 1, 1, c))
        angle = fy * y[None, :, :, None] + fx * x[None, :, :, None]
        out += amplitude * np.sin(2 * np.pi * angle + phase)
    out += rng.normal(0, 0.05, shape)
    return np.clip(out, -1, 1).astype(np.float32)
