"""Plugins: files, entry points, and what is wrong with one."""

import sys
from importlib.metadata import EntryPoint

import pytest
from support.plugins import restored_tables

from fqgan_jax import losses
from fqgan_jax.config import load_config, plugins
from fqgan_jax.config.plugins import load_plugin, load_plugins
from fqgan_jax.errors import UserError

LOSS = """
from fqgan_jax import losses

@losses.tokenizer("{name}")
def {name}(*, reconstruction, **_): ...
"""


@pytest.fixture(autouse=True)
def own_tables():
    """Restores the search path, the modules and the tables."""
    with restored_tables():
        yield


def write_loss(folder, name):
    file = folder / f"{name}_file.py"
    file.write_text(LOSS.format(name=name))
    return file


def test_a_plugin_adds_a_row_whose_weight_is_a_field(tmp_path):
    with pytest.raises(UserError, match=r"no field 'loss.smoothness_a'.*--plugin FILE"):
        load_config("configs/tokenizer_imagenet.py", ["--config.loss.smoothness_a=0.1"])
    load_plugins([write_loss(tmp_path, "smoothness_a")])
    assert "smoothness_a" in losses.tokenizer
    config = load_config("configs/tokenizer_imagenet.py", ["--config.loss.smoothness_a=0.1"])
    assert config.loss.smoothness_a == 0.1
    assert load_config("configs/tokenizer_imagenet.py").loss.smoothness_a == 0.0


def test_a_config_imports_a_file_beside_it(tmp_path):
    write_loss(tmp_path, "smoothness_b")
    (tmp_path / "mine.py").write_text(
        "import smoothness_b_file\nfrom fqgan_jax.config import tokenizer_defaults\n\n\n"
        "def get_config(arguments):\n    return tokenizer_defaults()\n"
    )
    config = load_config(str(tmp_path / "mine.py"), ["--config.loss.smoothness_b=0.2"])
    assert config.loss.smoothness_b == 0.2


def test_entry_points_are_imported(tmp_path, monkeypatch):
    write_loss(tmp_path, "smoothness_c")
    sys.path.append(str(tmp_path))
    entry = EntryPoint(name="mine", value="smoothness_c_file", group=plugins.GROUP)
    found = {"fqgan_jax.plugins": [entry]}
    monkeypatch.setattr(plugins, "entry_points", lambda group: found[group])
    load_plugins()
    assert "smoothness_c" in losses.tokenizer


def test_the_same_plugin_twice_is_one(tmp_path):
    file = write_loss(tmp_path, "smoothness_d")
    load_plugins([file, file])


def test_a_row_of_an_existing_name_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"kind 'tokenizer loss' named 'codebook'"):
        load_plugin(write_loss(tmp_path, "codebook"))


@pytest.mark.parametrize("name", ["none.py", "notes.txt"])
def test_a_file_that_is_no_python_file_is_named(name, tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match=f"no Python file .*{name}"):
        load_plugin(tmp_path / name)


@pytest.mark.parametrize("name", ["json", "sys"])
def test_the_name_of_another_module_is_refused(name, tmp_path):
    file = tmp_path / f"{name}.py"
    file.write_text("")
    with pytest.raises(UserError, match=r"has the name of another module .*rename the file"):
        load_plugin(file)


def test_a_file_without_get_config_is_no_config(tmp_path):
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match="defines no function get_config"):
        load_config(str(tmp_path / "empty.py"))


def test_a_syntax_error_names_file_and_line(tmp_path):
    file = tmp_path / "half_a_plugin.py"
    file.write_text("first = 1\ndef broken(:\n")
    with pytest.raises(UserError, match=r"half_a_plugin\.py, line 2: invalid syntax"):
        load_plugin(file)
