"""`fqgan weights`."""

import argparse
import re
from pathlib import Path

from fqgan_jax.errors import UserError

HELP = "List, fetch and verify the weights of the frozen networks that training and evaluation need."
EXAMPLES = """\
  fqgan weights list
  fqgan weights fetch vgg16 lpips-vgg16 dinov2-small
  fqgan weights fetch vgg16 --from vgg16-397923af.pth
  fqgan weights verify
The weights lie in $FQGAN_CACHE, or in ~/.cache/fqgan_jax."""


def add_arguments(parser) -> None:
    """Adds the actions of `fqgan weights` and their flags."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|fetch|verify")
    actions.add_parser("list", help="names, licences, sizes, sources, SHA-256, and which are in the cache")
    fetch = actions.add_parser("fetch", help="download (a broken transfer continues), check, and keep in the cache")
    fetch.add_argument("names", nargs="+", metavar="NAME", help="a name of fqgan weights list")
    fetch.add_argument("--from", dest="file", type=Path, metavar="FILE", help="the published file, at hand already")
    fetch.add_argument("--sha256", type=_digest, metavar="HEX", help="that the published file must have")
    actions.add_parser("verify", help="check every file in the cache against its recorded SHA-256")


def _digest(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text.lower()):
        raise argparse.ArgumentTypeError("a SHA-256 has 64 hexadecimal digits")
    return text.lower()


def run(options) -> None:
    """Runs the action that the command names."""
    if options.action == "fetch":
        _fetch(options)
    elif options.action == "verify":
        _verify()
    else:
        _list()


def _list() -> None:
    from fqgan_jax.pretrained.weights import cache_folder, networks

    rows = [("name", "used for", "licence", "MB", "state", "source", "SHA-256")]
    for network in networks.values():
        state = "present" if network.is_present else "missing"
        description = (network.used_for, network.license, str(network.megabytes))
        rows.append((network.name, *description, state, network.page, network.published_sha256))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"The cache is {cache_folder()}.")


def _fetch(options) -> None:
    from fqgan_jax.pretrained.fetching import fetch
    from fqgan_jax.pretrained.weights import networks

    if len(options.names) > 1 and (options.file or options.sha256):
        raise UserError("--from and --sha256 apply to one file: name one network.")
    for name in options.names:
        networks.check(name)
    for name in options.names:
        print(f"{name} -> {fetch(name, options.file, options.sha256)}")


def _verify() -> None:
    from fqgan_jax.pretrained.weights import cache_folder, find_weights, networks

    present = [name for name, network in networks.items() if network.is_present]
    changed = []
    for name in present:
        try:
            find_weights(name)
            print(f"{name}: unchanged")
        except UserError as error:
            changed.append(str(error))
    if changed:
        raise UserError("\n".join(changed))
    if not present:
        print(f"There are no weights in {cache_folder()} yet.")
