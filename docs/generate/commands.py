"""The help of every command, from its parser."""

import argparse

from fqgan_jax.cli.main import make_parser


def sections() -> str:
    """Returns a section for each command: what it does, examples, and a table of its arguments."""
    parser = make_parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return "\n".join(_section(each.prog, each) for each in commands.choices.values())


def _section(name: str, parser: argparse.ArgumentParser) -> str:
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    heading = "##" if name.count(" ") == 1 else "###"
    lines = [f"{heading} {name}", "", f"{_sentence(parser.description)}", ""]
    if parser.epilog:
        examples = parser.epilog.removeprefix("examples:\n")
        lines += ["```bash", *(line.removeprefix("  ") for line in examples.splitlines()), "```", ""]
    rows = [_row(parser, action) for action in parser._actions]
    rows = [row for row in rows if row]
    if rows:
        lines += ["| argument | what it is |", "| --- | --- |", *rows, ""]
    for action in nested:
        lines += [_section(each.prog, each) for each in action.choices.values()]
    return "\n".join(lines)


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Returns an argument's row, "" for one that is not shown."""
    if action.help == argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction | argparse._HelpAction):
        return ""
    formatter = parser._get_formatter()
    names = formatter._format_action_invocation(action)
    required = "; required" if action.required and action.option_strings else ""
    return f"| `{_cell(names)}` | {_cell(_sentence(formatter._expand_help(action)))}{required} |"


def _sentence(text: str | None) -> str:
    """Returns text in which Markdown sees no markup."""
    return "".join(f"\\{letter}" if letter in "*_<[" else letter for letter in text or "")


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
