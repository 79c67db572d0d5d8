"""Teachers of a user's own, from a file outside the package, in training."""

import sys

import jax
import numpy as np
import pytest
from support.tiny_configs import TINY_TOKENIZER

from fqgan_jax.cli.main import main
from fqgan_jax.config.plugins import load_plugin
from fqgan_jax.errors import UserError
from fqgan_jax.pretrained.teachers import teachers
from fqgan_jax.training.logging import read_log

HOST = """
import numpy as np
from fqgan_jax.pretrained.teachers import teachers

@teachers("corners", width=12)
def corners(image):
    return np.concatenate([image[::image.shape[0] - 1, ::image.shape[1] - 1]], dtype=np.float32).ravel() / 255
"""
DEVICE = """
import flax.linen as nn
import jax
import jax.numpy as jnp
from fqgan_jax.pretrained.teachers import DeviceTeacher, teachers


class Thumbnail(nn.Module):
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images):
        return nn.Dense(8, dtype=self.dtype)(images.reshape(len(images), -1))


def load():
    return Thumbnail().init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))["params"]


teachers.add("thumbnail", DeviceTeacher(module=Thumbnail(), width=8, image_size=4, load=load))
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Writes a plugin; the search path, the modules and the table of teachers are restored afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(teachers, "_rows", dict(teachers))
    monkeypatch.setattr(teachers, "_definitions", dict(teachers._definitions))

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return tmp_path / f"{name}.py"

    yield write
    for name in ("own_host_teacher", "own_device_teacher"):
        sys.modules.pop(name, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text"), [("corners", HOST), pytest.param("thumbnail", DEVICE, marks=pytest.mark.long)]
)
def test_a_tokenizer_trains_with_a_teacher_from_a_file(name, text, plugin, tmp_path):
    file = plugin(f"own_{'host' if text == HOST else 'device'}_teacher", text)
    command = ["train", "--plugin", str(file), "--config", "configs/demo_tokenizer.py"]
    command += ["--workdir", str(tmp_path / "run")]
    fields = [*TINY_TOKENIZER, "train.steps=2", "train.log_every=1", f"teachers=(None,'{name}')"]
    assert main([*command, *(f"--config.{field}" for field in fields)]) == 0
    losses = [line["feature/0"] for line in read_log(tmp_path / "run") if "feature/0" in line]
    assert len(losses) == 2
    assert np.all(np.isfinite(losses))
    assert np.all(np.array(losses) > 0)


def test_a_network_of_another_width_than_its_row_says_is_named(plugin):
    load_plugin(plugin("own_device_teacher", DEVICE.replace("width=8", "width=9")))
    teacher = teachers["thumbnail"]
    with pytest.raises(UserError, match=r"Thumbnail returns features of shape \[2, 8\] for 2 images, not \[2, 9\]"):
        jax.eval_shape(teacher.features, teacher.load(), np.zeros((2, 16, 16, 3), np.float32))
