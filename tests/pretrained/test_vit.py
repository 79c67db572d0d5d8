"""The vision transformer against transformers' PyTorch classes, through the files that those write."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import golden_data
from support.dino_files import DINO, SMALL, write_dino_files

from fqgan_jax.errors import UserError
from fqgan_jax.pretrained.vit_files import CLIP as CLIP_FAMILY
from fqgan_jax.pretrained.vit_files import DINOV2, DINOV2_WITH_REGISTERS, bicubic_matrix, load_vit

CLIP = SMALL | {"intermediate_size": 48, "patch_size": 8, "image_size": 32}


def random_model(model_class, config):
    """The class with every parameter drawn, so that none is left at zero or one; scores no image the same."""
    torch = pytest.importorskip("torch")
    model = model_class(config).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        spread = 0.1 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
        with torch.no_grad():
            parameter.copy_(noise * spread + float(name.endswith(("norm.weight", "lambda1")) or "norm1.weight" in name))
    return model


def random_images(size, batch=2):
    return np.random.default_rng(0).standard_normal((batch, size, size, 3)).astype(np.float32)


def torch_output(model, images, **options):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return model(torch.from_numpy(images.transpose(0, 3, 1, 2)), **options)


def our_output(folder, family, images):
    module, params = load_vit(folder, family, image_size=images.shape[1])
    return jax.jit(module.apply)({"params": params}, images)


@pytest.mark.torch
@pytest.mark.parametrize("saved", ["CLIPVisionModel", "CLIPVisionModelWithProjection", "CLIPModel"])
def test_clip_class_token_before_the_final_norm(saved, tmp_path):
    pytest.importorskip("torch")
    import transformers

    config = transformers.CLIPVisionConfig(**CLIP)
    if saved == "CLIPModel":
        text = SMALL | {"intermediate_size": 32, "vocab_size": 9, "bos_token_id": 0, "eos_token_id": 1}
        config = transformers.CLIPConfig(vision_config=config.to_dict(), text_config=text)
    model = random_model(getattr(transformers, saved), config)
    model.save_pretrained(tmp_path)
    images = random_images(32)
    tower = getattr(model, "vision_model", model)
    expected = torch_output(tower, images).last_hidden_state[:, 0]
    assert golden_data.relative_error(our_output(tmp_path, CLIP_FAMILY, images), expected) < 1e-5


@pytest.mark.torch
@pytest.mark.parametrize("size", [28, 63, 70])
@pytest.mark.parametrize("saved", ["Dinov2Model", "Dinov2ForImageClassification", "Dinov2WithRegistersModel"])
def test_dino_class_token_after_the_final_norm(saved, size, tmp_path):
    pytest.importorskip("torch")
    import transformers

    registers = "Registers" in saved
    config_class = transformers.Dinov2WithRegistersConfig if registers else transformers.Dinov2Config
    model = random_model(
        getattr(transformers, saved), config_class(**DINO, **({"num_register_tokens": 3} if registers else {}))
    )
    model.save_pretrained(tmp_path)
    images = random_images(size)
    family = DINOV2_WITH_REGISTERS if registers else DINOV2
    expected = torch_output(getattr(model, "dinov2", model), images).last_hidden_state[:, 0]
    assert golden_data.relative_error(our_output(tmp_path, family, images), expected) < 1e-5


@pytest.mark.torch
@pytest.mark.slow
def test_dinov2_small_at_full_size(tmp_path):
    pytest.importorskip("torch")
    import transformers

    sizes = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "image_size": 518}
    model = random_model(transformers.Dinov2Model, transformers.Dinov2Config(**sizes))
    model.save_pretrained(tmp_path)
    images = random_images(224, batch=1)
    expected = torch_output(model, images).pooler_output
    assert golden_data.relative_error(our_output(tmp_path, DINOV2, images), expected) < 1e-4


@pytest.mark.torch
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("size", "new_size"), [(37, 16), (9, 4), (5, 8)])
def test_bicubic_matrix_is_pytorchs_resize(size, new_size, antialias):
    torch = pytest.importorskip("torch")
    rows = torch.eye(size)[:, None, None, :]
    options = {"mode": "bicubic", "align_corners": False, "antialias": antialias}
    expected = torch.nn.functional.interpolate(rows, size=(1, new_size), **options)[:, 0, 0].numpy().T
    np.testing.assert_allclose(bicubic_matrix(size, new_size, antialias=antialias), expected, atol=1e-5)


def test_bfloat16_stays_close_and_returns_float32(tmp_path):
    module, params = load_vit(write_dino_files(tmp_path), DINOV2, image_size=28)
    images = random_images(28)
    exact = module.apply({"params": params}, images)
    half = module.clone(dtype=jnp.bfloat16).apply({"params": params}, images)
    assert half.dtype == jnp.float32
    assert 1e-5 < golden_data.relative_error(half, exact) < 0.05


def test_missing_and_misshaped_tensors_are_named(tmp_path):
    tensors = load_file(write_dino_files(tmp_path) / "model.safetensors")
    del tensors["encoder.layer.1.mlp.fc2.bias"]
    tensors["layernorm.bias"] = np.zeros(31, np.float32)
    tensors["embeddings.position_embeddings"] = tensors["embeddings.position_embeddings"][:, :50]
    save_file({f"dinov2.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    with pytest.raises(UserError) as raised:
        load_vit(tmp_path, DINOV2)
    message = str(raised.value)
    assert "1 missing: encoder.layer.1.mlp.fc2.bias" in message
    assert "layernorm.bias (31,), not (32,)" in message
    assert "embeddings.position_embeddings (50, 32), not (82, 32)" in message


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "There is no"),
        ("{", "describes no network of type"),
        ('{"model_type": "bert"}', "describes no network of type"),
        ('{"model_type": "dinov2", "use_swiglu_ffn": true}', "use_swiglu_ffn=True"),
        ('{"model_type": "clip_vision_model", "hidden_act": "relu"}', "hidden_act='relu'"),
        ('{"model_type": "dinov2"}', "There is no file"),
    ],
)
def test_folders_that_hold_no_such_network(content, sentence, tmp_path):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    family = CLIP_FAMILY if "clip" in (content or "") else DINOV2
    with pytest.raises(UserError, match=sentence):
        load_vit(tmp_path, family)
