"""Every row of `quantizers` against the formula it is defined by, in NumPy or by autodiff."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fqgan_jax.errors import UserError
from fqgan_jax.losses.quantization_losses import entropy_loss
from fqgan_jax.models.quantizers import QuantizerSizes, gradients, quantizers

SIZES = {
    "vq": {"codebook_size": 16, "code_dim": 3},
    "simvq": {"codebook_size": 16, "code_dim": 3},
    "ibq": {"codebook_size": 16, "code_dim": 3},
    "lfq": {"codebook_size": 16, "code_dim": 4},
    "bsq": {"codebook_size": 16, "code_dim": 4},
    "fsq": {"codebook_size": 60, "code_dim": 3, "levels": (5, 4, 3)},
}
EVERY = pytest.mark.parametrize("name", list(SIZES))
EVERY_K = pytest.mark.parametrize("K", [1, 2, 8])


def built(name, K, **sizes):
    sizes = QuantizerSizes(num_codebooks=K, temperature=0.5, **(SIZES[name] | sizes))
    quantizers[name].check_sizes(sizes)
    module = quantizers[name](sizes=sizes)
    latents = jax.random.normal(jax.random.key(1), (2, 3, 4, K, sizes.code_dim))
    return module, module.init(jax.random.key(0), latents), latents


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@EVERY_K
@EVERY
def test_codes_come_back_as_the_entries_that_training_saw(name, K):
    module, params, latents = built(name, K)
    output = module.apply(params, latents)
    N = SIZES[name]["codebook_size"]
    assert output.codes.dtype == jnp.int32
    assert output.codes.min() >= 0
    assert output.codes.max() < N
    np.testing.assert_array_equal(module.apply(params, latents, method="encode"), output.codes)
    entries = module.apply(params, output.codes, method="decode")
    np.testing.assert_allclose(entries, output.quantized, atol=1e-6)
    # Every code is reachable: the entry of each, as a latent, is quantized to itself.
    every = jnp.broadcast_to(jnp.arange(N)[:, None, None, None], (N, 1, 1, K))
    if name != "fsq":  # whose entries lie beyond its bounds' inverse at the outermost levels
        found = module.apply(params, module.apply(params, every, method="decode"), method="encode")
        np.testing.assert_array_equal(found, every)


@EVERY_K
def test_simvq_compares_with_the_product_and_moves_the_matrix_alone(K):
    module, params, latents = built("simvq", K)
    matrix = jax.random.normal(jax.random.key(5), params["params"]["projection"].shape)
    params = {"params": params["params"] | {"projection": matrix}}
    entries = unit(np.einsum("knd,kde->kne", params["params"]["basis"], matrix))
    distances = np.sum((unit(np.asarray(latents))[..., None, :] - entries) ** 2, -1)
    np.testing.assert_array_equal(module.apply(params, latents, method="encode"), distances.argmin(-1))

    def loss(params):
        return jnp.sum(module.apply(params, latents).entries ** 3)

    def direct(params):
        product = jnp.einsum("knd,kde->kne", params["params"]["basis"], params["params"]["projection"])
        product /= jnp.linalg.norm(product, axis=-1, keepdims=True)
        return sum(jnp.sum(product[k][distances.argmin(-1)[..., k]] ** 3) for k in range(K))

    found, expected = jax.grad(loss)(params)["params"], jax.grad(direct)(params)["params"]
    np.testing.assert_allclose(found["projection"], expected["projection"], rtol=1e-4, atol=1e-5)
    assert not np.any(found["basis"])


@EVERY_K
@pytest.mark.parametrize("chunk_tokens", [2, 10**6])
def test_ibq_gradients_are_those_of_its_formula(K, chunk_tokens):
    module, params, latents = built("ibq", K, chunk_tokens=chunk_tokens)
    weights = jax.random.normal(jax.random.key(7), latents.shape)

    def normalized(x):
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    def direct(params, latents):
        z, entries = normalized(latents), normalized(params["params"]["codebooks"])
        similarity = jnp.einsum("bhwkd,knd->bhwkn", z, entries)
        p = jax.nn.softmax(similarity)
        hard = jax.nn.one_hot(jnp.argmax(similarity, -1), entries.shape[1])
        chosen = hard - jax.lax.stop_gradient(p) + p
        return jnp.sum(jnp.einsum("bhwkn,knd->bhwkd", chosen, entries) * weights)

    def ours(params, latents):
        return jnp.sum(module.apply(params, latents).soft_entries * weights)

    value, grads = jax.value_and_grad(ours, (0, 1))(params, latents)
    expected, expected_grads = jax.value_and_grad(direct, (0, 1))(params, latents)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), grads, expected_grads)
    assert np.all(np.any(np.asarray(grads[0]["params"]["codebooks"]), axis=-1))  # every entry learns


@EVERY_K
@pytest.mark.parametrize("name", ["lfq", "bsq"])
def test_binary_codes_and_entropies_are_those_of_the_whole_table(name, K):
    module, params, latents = built(name, K)
    table = np.array(list(itertools.product([-1.0, 1.0], repeat=4)))  # the first dimension is the highest bit
    z = np.asarray(latents, np.float64)
    if name == "bsq":
        z, table = unit(z), table / 2

    def direct(z):
        distances = jnp.sum((z[..., None, :] - table) ** 2, -1)
        p = jax.nn.softmax(-distances / 0.5)
        mean = jnp.mean(p, (0, 1, 2))
        token = -jnp.mean(jnp.sum(p * jnp.log(p + 1e-30), -1), (0, 1, 2))
        return jnp.argmin(distances, -1), token + jnp.sum(mean * jnp.log(mean + 1e-5), -1)

    output = module.apply(params, latents)
    codes, entropy = direct(z)
    np.testing.assert_array_equal(output.codes, codes)
    np.testing.assert_allclose(module.apply(params, codes, method="decode"), table[codes], rtol=1e-6)
    found = entropy_loss(token_entropy=output.token_entropy, mean_probability=output.mean_probability)
    np.testing.assert_allclose(found, entropy, rtol=1e-4, atol=1e-5)

    def ours(z):
        output = module.apply(params, z)
        return jnp.sum(entropy_loss(token_entropy=output.token_entropy, mean_probability=output.mean_probability))

    def formula(z):
        return jnp.sum(direct(z / jnp.linalg.norm(z, axis=-1, keepdims=True) if name == "bsq" else z)[1])

    np.testing.assert_allclose(jax.grad(ours)(latents), jax.grad(formula)(latents), rtol=1e-3, atol=1e-6)


def test_many_bits_need_no_table_and_their_groups_add_up():
    module, params, latents = built("lfq", 2, code_dim=18, codebook_size=2**18)
    output = module.apply(params, latents)
    assert output.mean_probability.shape == (2, 2, 2**9)
    p = 1 / (1 + np.exp(-8 * np.asarray(latents, np.float64).reshape(-1, 2, 2, 9)))
    bits = np.array(list(itertools.product([0, 1], repeat=9)))
    joint = np.prod(np.where(bits, p[..., None, :], 1 - p[..., None, :]), -1).mean(0)
    np.testing.assert_allclose(output.mean_probability, joint, rtol=1e-4, atol=1e-7)
    found = module.apply(params, module.apply(params, output.codes, method="decode"), method="encode")
    np.testing.assert_array_equal(found, output.codes)


def test_fsq_rounds_to_its_levels():
    module, params, _ = built("fsq", 1)
    steps = np.linspace(-4, 4, 4001)
    latents = jnp.asarray(steps, jnp.float32)[:, None, None, None, None] * jnp.ones(3)
    output = module.apply(params, latents)
    values = np.asarray(output.quantized).reshape(-1, 3)
    for i, levels in enumerate((5, 4, 3)):
        half = levels // 2
        expected = np.arange(levels) - half
        np.testing.assert_allclose(np.unique(np.round(values[:, i] * half, 4)), expected, atol=1e-4)
        bound, offset = (levels - 1) * 1.001 / 2, 0.5 if levels % 2 == 0 else 0
        direct = np.round(np.tanh(steps + np.arctanh(offset / bound)) * bound - offset)
        assert np.mean(np.round(values[:, i] * half) == direct) > 0.999  # float32 at the borders
    halves = np.array((2, 2, 1))
    digits = np.round(values * halves) + halves
    np.testing.assert_array_equal(output.codes.reshape(-1), digits @ (1, 5, 20))
    gradient = jax.grad(lambda z: jnp.sum(module.apply(params, z).quantized))(latents)
    direct = jax.grad(lambda z: jnp.sum(module.apply(params, z).latents))(latents)
    np.testing.assert_allclose(gradient, direct)
    assert (output.entries, output.token_entropy) == (None, None)  # no auxiliary loss


@pytest.mark.parametrize("name", ["vq", "simvq", "lfq", "bsq"])
def test_rotation_turns_the_gradient_as_the_latent_turns_to_its_entry(name):
    module, params, latents = built(name, 2, gradient="rotation")
    output = module.apply(params, latents)
    chosen = module.apply(params, output.codes, method="decode")
    np.testing.assert_allclose(output.quantized, chosen, atol=1e-5)
    weights = jax.random.normal(jax.random.key(2), latents.shape)
    z, c = (np.asarray(x, np.float64).reshape(-1, latents.shape[-1]) for x in (output.latents, chosen))
    g = np.asarray(weights, np.float64).reshape(z.shape)
    expected = []
    for zi, ci, gi in zip(z, c, g, strict=True):
        q, u = ci / np.linalg.norm(ci), zi / np.linalg.norm(zi)
        w = (q + u) / np.linalg.norm(q + u)
        matrix = np.eye(len(zi)) - 2 * np.outer(w, w) + 2 * np.outer(q, u)
        np.testing.assert_allclose(matrix @ u, q, atol=1e-6)
        expected.append(np.linalg.norm(ci) / np.linalg.norm(zi) * matrix.T @ gi)

    def through_latents(z):
        return jnp.sum(gradients["rotation"](z.reshape(latents.shape), chosen) * weights)

    found = jax.grad(through_latents)(jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("lfq", {"codebook_size": 15}, r"model.code_dim=4 gives 16 entries, not model.codebook_size=15"),
        ("bsq", {"code_dim": 5}, r"Set model.codebook_size=32"),
        ("fsq", {"levels": (5, 4)}, r"needs model.code_dim=3 numbers of levels"),
        ("fsq", {"levels": ()}, r"leaves no equal numbers that do it"),
        ("fsq", {"gradient": "rotation"}, r"leave out model.gradient='rotation'"),
        ("ibq", {"gradient": "rotation"}, r"a gradient of its own"),
    ],
)
def test_sizes_that_cannot_work_are_refused(name, sizes, message):
    with pytest.raises(UserError, match=message):
        built(name, 2, **sizes)


def test_equal_levels_are_found():
    module, params, latents = built("fsq", 2, codebook_size=4**3, levels=())
    assert math.prod(np.unique(module.apply(params, latents).quantized).shape) == 4


def test_near_entries_are_among_the_nearest():
    module, params, latents = built("vq", 2)
    z = unit(np.asarray(latents))
    entries = unit(np.asarray(params["params"]["codebooks"]))
    allowed = np.argsort(np.sum((z[..., None, :] - entries) ** 2, -1), -1)[..., :3]
    draw = jax.vmap(lambda key: module.apply(params, key, jnp.asarray(z), nearest=3, method="near_entries"))
    near = draw(jax.random.split(jax.random.key(0), 40))
    codes = np.argmax(np.einsum("nbhwkd,kjd->nbhwkj", near, entries), -1)
    for token in np.ndindex(allowed.shape[:-1]):
        assert set(codes[(slice(None), *token)]) == set(allowed[token])
