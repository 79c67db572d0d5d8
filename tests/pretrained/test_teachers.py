"""Teachers by name: published sizes, published normalization, and only the published network is loaded."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from support import dino_files, golden_data
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from fqgan_jax.errors import UserError
from fqgan_jax.files import sha256_of
from fqgan_jax.pretrained.fetching import fetch
from fqgan_jax.pretrained.teachers import device_teachers, teachers
from fqgan_jax.pretrained.tensors import CONFIG, TENSORS
from fqgan_jax.pretrained.vit_files import CLIP, DINOV2, DINOV2_WITH_REGISTERS, read_config
from fqgan_jax.pretrained.weights import networks

# Parameters in millions: DINOv2's model cards state 21 (S), 86 (B) and 300 (L); CLIP's towers are of the sizes B and L.
MILLIONS = {384: (21, 22.1), 768: (85, 88), 1024: (300, 305)}
WIDTHS = {
    "clip-vit-base-patch16": 768,
    "clip-vit-base-patch32": 768,
    "clip-vit-large-patch14": 1024,
    "dinov2-small": 384,
    "dinov2-base": 768,
    "dinov2-large": 1024,
    "dinov2-with-registers-small": 384,
    "dinov2-with-registers-base": 768,
    "dinov2-with-registers-large": 1024,
}

PUBLISHED = device_teachers(WIDTHS, "float32")


def test_every_teacher_has_its_width_its_weights_and_its_size():
    assert {name: teacher.width for name, teacher in PUBLISHED.items()} == WIDTHS
    for name, teacher in PUBLISHED.items():
        assert teacher.weights is networks[name]
        assert networks[name].repository
        leaves = jax.tree.leaves(jax.eval_shape(teacher.init, jax.random.key(0)))
        low, high = MILLIONS[teacher.width]
        assert low < sum(leaf.size for leaf in leaves) / 1e6 < high, name


@pytest.mark.parametrize(
    ("name", "family", "config"),
    [
        ("clip-vit-base-patch32", CLIP, transformers.CLIPVisionConfig()),
        ("clip-vit-base-patch32", CLIP, transformers.CLIPConfig()),
        ("dinov2-base", DINOV2, transformers.Dinov2Config()),
        (
            "dinov2-with-registers-base",
            DINOV2_WITH_REGISTERS,
            transformers.Dinov2WithRegistersConfig(patch_size=14),
        ),
    ],
)
def test_sizes_are_those_of_the_libraries_defaults(name, family, config, tmp_path):
    config.save_pretrained(tmp_path)
    assert read_config(tmp_path, family) == teachers[name].module


def test_normalization_is_the_libraries():
    for name, teacher in PUBLISHED.items():
        clip = (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD), (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        assert (list(teacher.mean), list(teacher.std)) == tuple(clip["dino" in name])


@pytest.fixture
def small_teacher(tmp_path, monkeypatch):
    """dinov2-small, far smaller, with its weights in the cache."""
    monkeypatch.setenv("FQGAN_CACHE", str(tmp_path / "cache"))
    dino_files.fetch_small_teacher(tmp_path / "published")
    return dino_files.small_teacher()


def test_features_are_a_pure_function_of_parameters_and_images(small_teacher):
    params = small_teacher.load()
    images = golden_data.image((2, 40, 50, 3))
    features = jax.jit(small_teacher.features)(params, images)
    assert features.shape == (2, small_teacher.width)
    # Pixels that the nearest-neighbour resize keeps, normalized by hand.
    seen = images[:, np.arange(28) * 40 // 28][:, :, np.arange(28) * 50 // 28]
    seen = ((seen + 1) / 2 - np.array(small_teacher.mean)) / np.array(small_teacher.std)
    expected = small_teacher.module.apply({"params": params}, jnp.asarray(seen, jnp.float32))
    assert golden_data.relative_error(features, expected) < 1e-5
    half = small_teacher.with_dtype("bfloat16").features(params, images)
    assert half.dtype == jnp.float32
    assert 1e-5 < golden_data.relative_error(half, expected) < 0.05


def test_random_parameters_have_the_published_shapes(small_teacher):
    def shapes(params):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params)

    assert shapes(jax.eval_shape(small_teacher.init, jax.random.key(0))) == shapes(small_teacher.load())


def test_another_network_in_the_cache_is_refused(small_teacher, tmp_path):
    with pytest.raises(UserError, match="holds another network than dinov2-small"):
        teachers["dinov2-small"].load()
    # The tensors fit either number of heads: only config.json tells.
    config = tmp_path / "published" / CONFIG
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_attention_heads": 2}))
    file = config.with_name(TENSORS)
    fetch("dinov2-small", file, sha256_of(file))
    with pytest.raises(UserError, match="holds another network than dinov2-small"):
        small_teacher.load()
