"""How `fqgan COMMAND --help` looks: short enough for a screen."""

import argparse


class ScreenHelp(argparse.RawDescriptionHelpFormatter):
    """Names in the usage line only what must be given; more room for flags, so that their text begins beside them."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30)

    def add_usage(self, usage, actions, groups, prefix=None) -> None:
        """Adds the usage line of the arguments that are needed; `prefix` is "" if it is to name a subcommand."""
        if prefix == "":
            super().add_usage(usage, actions, groups, prefix)
            return
        needed = [_usage(action) for action in actions if action.required]
        super().add_usage(usage or " ".join(["%(prog)s [options]", *needed]), actions, groups, prefix)


def _usage(action: argparse.Action) -> str:
    name = action.metavar or action.dest.upper()
    repeated = " ..." if action.nargs == "+" else ""
    return " ".join([*action.option_strings[:1], f"{name}{repeated}"]).replace("%", "%%")
