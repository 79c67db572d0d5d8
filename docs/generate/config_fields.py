"""Tables of all config fields, with the one-line comments of fqgan_jax/config/defaults.py."""

import ast
import inspect
import io
import tokenize
from collections.abc import Mapping, Sequence

from fqgan_jax import config
from fqgan_jax.config import defaults
from fqgan_jax.config.rules import flat

PARTS = (
    ("Fields of every task", "_task_fields", defaults.task_defaults),
    ("Fields of tokenizers", "_tokenizer_fields", config.tokenizer_defaults),
    ("Fields of generators", "_generator_fields", config.generator_defaults),
)
Row = tuple[str, str, str]  # default, comment, what it may be


def tables() -> str:
    """Returns every field with its default, its comment and what it may be; those of every task once."""
    common: dict[str, Row] = {}
    parts = []
    for title, function, values in PARTS:
        fields = rows(function, flat(values()))
        shown = {path: row for path, row in fields.items() if common.get(path) != row}
        common = common or fields
        parts.append(f"## {title}\n\n{_sections(shown)}\n")
    return "\n".join(parts)


def rows(function: str, values: Mapping[str, object]) -> dict[str, Row]:
    """Returns a row for each field that a function of `defaults` declares, by its path."""
    explained = comments(function)
    rules = flat(getattr(defaults, function)())
    shown = [path for path in explained if path in values]  # the branches of a function declare more
    return {path: (repr(values[path]), explained[path], str(rules[path].rule)) for path in shown}


def comments(function: str) -> dict[str, str]:
    """Returns the comment of each field that a function of `defaults` declares, by its path."""
    source = inspect.getsource(defaults)
    functions = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    at_line = {
        token.start[0]: token.string.removeprefix("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    return _declared(functions[function].body, functions, at_line)


def _declared(body: Sequence[ast.stmt], functions: Mapping, at_line: Mapping[int, str]) -> dict[str, str]:
    """Returns the comments of the fields that statements declare: beside them, or in the line above."""
    sections: dict[str, str] = {}  # name of a variable to the path of the section that it holds
    found: dict[str, str] = {}
    for node in body:
        if isinstance(node, ast.If):
            node = node.body[0]
        if not isinstance(node, ast.Assign):
            continue
        paths = [_path(target, sections) for target in node.targets if isinstance(target, ast.Attribute)]
        path = paths[0] if paths else ""
        called = node.value.func.id
        if called == "ConfigDict":
            sections |= {target.id: path for target in node.targets if isinstance(target, ast.Name)}
        elif called in functions:
            inner = _declared(functions[called].body, functions, at_line)
            sections |= {target.id: path for target in node.targets if isinstance(target, ast.Name)}
            found |= {f"{path}.{name}".lstrip("."): comment for name, comment in inner.items()}
        elif comment := at_line.get(node.end_lineno) or at_line.get(node.lineno - 1):
            found.setdefault(path, comment)
    return found


def _path(target: ast.Attribute, sections: Mapping[str, str]) -> str:
    """Returns the path of `model.width` or `config.train.steps`."""
    names = ast.unparse(target).split(".")
    return ".".join(filter(None, [sections[names[0]], *names[1:]]))


def _sections(fields: Mapping[str, Row]) -> str:
    """Returns a table for each section of a config, in the order of the code."""
    tables: dict[str, list[str]] = {}
    for path, row in fields.items():
        section = path.rpartition(".")[0] or "top level"
        default, comment, rule = (text.replace("|", r"\|") for text in row)
        rows = tables.setdefault(section, [f"### {section}", "", "| field and default | what it is |", "| --- | --- |"])
        rows.append(f"| `{path}={default}` | {comment}; <small>{rule}</small> |")
    return "\n\n".join("\n".join(rows) for rows in tables.values())
