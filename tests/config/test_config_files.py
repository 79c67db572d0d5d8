"""Config files that are none: one sentence with file and line."""

import pytest

from fqgan_jax.config import load_config, parse_arguments, whole
from fqgan_jax.errors import UserError

HEAD = "from fqgan_jax.config import tokenizer_defaults\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEAD + "def get_config(arguments):\n  return tokenizer_defaults(\n", "line 3: SyntaxError"),
        (HEAD + "1 / 0\n", "line 2: ZeroDivisionError: division by zero. Mend the config"),
        ("import nothing_of_this_name\n", "line 1: ModuleNotFoundError"),
        (HEAD + "def get_config(arguments):\n  config = tokenizer_defaults()\n  return config.modle\n", "line 4: "),
        (HEAD + "def get_config(arguments):\n  return {'task': 'tokenizer'}\n", "returns no ConfigDict, but dict"),
        (HEAD, "defines no function get_config"),
        ("", "defines no function get_config"),
        ("x = '\0'\n", "Mend the config"),
        ("def get_config():\n  return 1\n", "TypeError"),
    ],
)
def test_a_config_file_that_fails(content, message, tmp_path):
    (tmp_path / "own.py").write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        load_config(str(tmp_path / "own.py"))
    assert "own.py" in str(raised.value)


def test_a_config_that_is_no_python_file(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"must end in \.py"):
        load_config(str(tmp_path / "config.json"))


@pytest.mark.parametrize("k", [0, -1, 65, 10**9, 10**30])
@pytest.mark.parametrize("name", ["demo_tokenizer", "tokenizer_imagenet", "tokenizer_64", "finetune_tokenizer"])
def test_numbers_of_sub_codebooks_out_of_range(name, k):
    with pytest.raises(UserError, match=f"config argument k is {k}: give a whole number from 1 to 64"):
        load_config(f"configs/{name}.py:k={k}")


def test_arguments_take_the_default_and_the_type_of_their_field():
    assert parse_arguments("", k=whole(2, 1, 64), f=16) == {"k": 2, "f": 16}
    assert parse_arguments("k=3", k=whole(2, 1, 64), f=16) == {"k": 3, "f": 16}
    with pytest.raises(UserError, match="is not of type int"):
        parse_arguments("k=x", k=whole(2, 1, 64))
