"""Registries: rows, their decorators, and the weights that they give a config."""

import pytest

from fqgan_jax.config import Registry, from_json, load_config, registry, to_json, tokenizer_defaults, with_defaults
from fqgan_jax.errors import UserError


@pytest.fixture
def shapes():
    shapes = Registry("shape")

    @shapes("circle")
    def circle():
        return "round"

    return shapes


def test_rows_are_found_by_name_in_the_order_of_their_definition(shapes):
    assert shapes.add("square", "angular") == "angular"
    assert list(shapes) == ["circle", "square"]
    assert len(shapes) == 2
    assert shapes["circle"]() == "round"
    assert "circle" in shapes
    assert "oval" not in shapes


def test_get_returns_the_default_for_an_unknown_name(shapes):
    assert shapes.get("circle") is shapes["circle"]
    assert shapes.get("oval") is None
    assert shapes.get("oval", "flat") == "flat"


def test_an_unknown_name_is_explained(shapes):
    with pytest.raises(UserError, match=r"There is no shape 'circel'; did you mean 'circle'\?.*--plugin FILE"):
        shapes["circel"]
    with pytest.raises(UserError, match=r"model.shape is 'x': there is no shape 'x': choose one of circle\."):
        shapes.check("x", "model.shape")


def test_keywords_of_the_decorator_reach_the_row():
    shapes = Registry("shape", lambda definition, *, corners: (definition, corners))
    assert shapes("square", corners=4)(str) is str
    assert shapes["square"] == (str, 4)


def test_a_registry_without_a_row_type_takes_no_keywords(shapes):
    with pytest.raises(TypeError):
        shapes("square", corners=4)(str)


def test_the_same_definition_again_replaces_its_row_and_another_is_refused(shapes):
    first = shapes["circle"]

    def again():
        return "rounder"

    again.__module__, again.__qualname__ = first.__module__, first.__qualname__
    shapes("circle")(again)
    assert shapes["circle"]() == "rounder"
    with pytest.raises(
        UserError, match=r"two rows of kind 'shape' named 'circle', .*circle and builtins.str: rename one"
    ):
        shapes("circle")(str)


def test_rows_of_a_section_are_weights_of_their_tasks_configs(monkeypatch):
    monkeypatch.setattr(registry, "_with_section", [])
    written = to_json(load_config("configs/tokenizer_imagenet.py"))
    losses = Registry("loss", section="loss", task="tokenizer")
    losses("codebook")(int)
    losses("smoothness")(float)
    config = load_config("configs/tokenizer_imagenet.py")
    assert (config.loss.codebook, config.loss.smoothness) == (1.0, 0.0)
    assert load_config("configs/tokenizer_imagenet.py", ["--config.loss.smoothness=0.1"]).loss.smoothness == 0.1
    assert with_defaults(from_json(written), tokenizer_defaults()).loss.smoothness == 0.0
    assert "smoothness" not in load_config("configs/generator_imagenet.py").loss


def test_a_section_that_a_config_lacks_is_added(monkeypatch):
    monkeypatch.setattr(registry, "_with_section", [])
    Registry("loss", section="penalties", task="generator")("length")(int)
    assert load_config("configs/generator_imagenet.py", ["--config.penalties.length=2"]).penalties.length == 2


def test_a_registry_is_no_decorator_itself():
    with pytest.raises(UserError, match="A row of kind 'loss' needs a name"):
        Registry("loss")(print)
