"""Every sentence with which a command ends, from the code that raises it."""

import ast
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "fqgan_jax"
RAISERS = {"UserError": 0, "DivergedError": 0, "check": 1}  # what takes a sentence, and in which of its arguments
VALUE = "…"  # stands for what the sentence fills in
SHORTEST = 20  # without values; less cannot be looked up


def lists() -> str:
    """Returns all sentences, by the part of the package that says them."""
    parts = []
    for room, found in groupby(sentences(), key=lambda pair: pair[0]):
        lines = [f"- {_text(sentence)}" for sentence in sorted({sentence for _, sentence in found})]
        parts.append(
            "\n".join([f'??? note "{room}: {len(lines)} sentences"', "", *(f"    {line}" for line in lines), ""])
        )
    return "\n".join(parts)


def sentences() -> Iterator[tuple[str, str]]:
    """Yields room and sentence of every error that is meant for the user; values are `VALUE`."""
    for file in sorted(PACKAGE.rglob("*.py")):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            for expression in _said(node):
                sentence = _template(expression)
                if len(sentence.replace(VALUE, "")) >= SHORTEST:
                    yield room, sentence


def _said(node: ast.AST) -> list[ast.expr]:
    """Returns the expressions of the sentences that a piece of code says."""
    match node:
        case ast.Call(func=ast.Name(id=name), args=arguments) if len(arguments) > RAISERS.get(name, len(arguments)):
            return [arguments[RAISERS[name]]]
        case ast.Assign(targets=[ast.Name(id="refusal")], value=value):
            return [value]
        case ast.FunctionDef(name="_sentence", body=body):
            inner = [each for statement in body for each in ast.walk(statement)]
            return [each.value for each in inner if isinstance(each, ast.Return) and each.value is not None]
    return []


def _template(node: ast.expr) -> str:
    """Returns the text of an expression with `VALUE` for what is not constant."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _template(node.left) + _template(node.right)
    return VALUE


def _text(sentence: str) -> str:
    """Returns a sentence in which Markdown sees no markup."""
    return "".join(f"\\{letter}" if letter in "*_<[`" else letter for letter in sentence)
