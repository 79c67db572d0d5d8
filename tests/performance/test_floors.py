"""Least traffic, by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from support.tiny_configs import tiny_generator_config, tiny_tokenizer_config

from fqgan_jax.models.blocks import ResidualBlock, Transformer
from fqgan_jax.performance.floors import layer_floor_bytes, sampling_floor_bytes
from fqgan_jax.performance.tasks import make_step


def test_sampling_floor_by_hand():
    step = make_step(tiny_generator_config(), tokenizer_config=tiny_tokenizer_config())
    module, params = step.task.module, step.shapes.state.params
    T, K, D = module.grid[0] * module.grid[1], module.num_codebooks, module.width

    def size(name):
        return sum(leaf.size for leaf in jax.tree.leaves(params[name]))

    weights = size("backbone") + size("aggregate") + size("outputs") + K * size("head")
    keys_and_values = sum(module.depth * 2 * D * (t + 1) for t in range(T))
    # Conditional and unconditional rows of three images, in float32.
    assert sampling_floor_bytes(module, params, 3) == 4 * (T * weights + 6 * keys_and_values)


def floor_of(module: nn.Module, shape: tuple[int, ...]) -> float:
    x = jax.ShapeDtypeStruct(shape, module.dtype)
    params = jax.eval_shape(module.init, jax.random.key(0), x)
    return layer_floor_bytes(module.apply, params, x)


def test_convolutions_and_norms():
    B, h, w, c, width = 2, 8, 8, 32, 64
    narrow, wide = (2 * B * h * w * channels for channels in (c, width))  # bytes of a map
    norms = 2 * narrow + 4 * c * 2 + 2 * wide + 4 * width * 2  # scale and bias in float32
    convolutions = narrow + wide + 2 * wide + narrow + wide
    kernels = 2 * (9 * c * width + 9 * width * width + c * width)
    assert floor_of(ResidualBlock(width=width, dtype=jnp.bfloat16), (B, h, w, c)) == norms + convolutions + kernels


def test_layers_of_a_loop_count_each():
    sizes = [floor_of(Transformer(depth=depth, num_heads=2), (2, 16, 32)) for depth in (1, 3)]
    assert sizes[1] == 3 * sizes[0] > 0


def test_products_of_every_branch_but_one_are_left_out():
    a, b = jnp.ones((8, 8)), jnp.ones((8, 32))

    def either(flag, a, b):
        return jax.lax.cond(flag, lambda: jnp.sum(a @ b), lambda: jnp.sum(a @ a))

    assert layer_floor_bytes(either, True, a, b) == 4 * (8 * 8 + 2 * 8 * 32)
