"""`fqgan weights`."""

import argparse
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fqgan_jax.cli.tables import print_table
from fqgan_jax.errors import UserError

HELP = "List, fetch and verify published weights: the frozen networks that training needs, and FQGAN's tokenizers."
EXAMPLES = """\
  fqgan weights list
  fqgan weights fetch vgg16 lpips-vgg16 dinov2-small
  fqgan weights fetch vgg16 --from vgg16-397923af.pth
  fqgan weights fetch fqgan-dual-f16  # for --checkpoint fqgan-dual-f16
  fqgan weights verify
The weights lie in $FQGAN_CACHE, or in ~/.cache/fqgan_jax; tokenizers in the hub's cache ($HF_HOME)."""

_NOT_OURS = (
    "FQGAN's tokenizers are their authors' work, under the licence of their release, which allows no commercial use; "
    "fqgan_jax neither contains nor distributes them."
)


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
    from fqgan_jax.hub import cached, hub_models
    from fqgan_jax.pretrained.weights import cache_folder, networks

    rows = [("name", "used for", "licence", "MB", "state", "source", "SHA-256")]
    for network in networks.values():
        state = "present" if network.is_present else "missing"
        description = (network.used_for, network.license, str(network.megabytes))
        rows.append((network.name, *description, state, network.page, network.published_sha256))
    for name, model in hub_models.items():
        state = "missing" if cached(model.address) is None else "present"
        digest = "the hub's own, asked when it is fetched"
        rows.append((name, model.used_for, model.license, "", state, model.address.page, digest))
    print_table(rows)
    print(f"The cache is {cache_folder()}. {_NOT_OURS}")


def _fetch(options) -> None:
    from fqgan_jax.hub import download, hub_models
    from fqgan_jax.pretrained.fetching import fetch
    from fqgan_jax.pretrained.tensors import check_reader
    from fqgan_jax.pretrained.weights import networks

    one_file = options.file or options.sha256
    if len(options.names) > 1 and one_file:
        raise UserError("--from and --sha256 apply to one file: name one network.")
    for name in options.names:
        if name not in hub_models:
            networks.check(name)
        elif one_file:
            raise UserError(f"A file of {name} at hand is read from where it lies: give its path to --checkpoint.")
        else:
            check_reader(hub_models[name].address.file)
    for name in options.names:
        is_model = name in hub_models
        path = download(hub_models[name].address) if is_model else fetch(name, options.file, options.sha256)
        print(f"{name} -> {path}")
        if is_model:
            print(_NOT_OURS)


def _verify() -> None:
    from fqgan_jax.hub import cached, check_digest, hub_models
    from fqgan_jax.pretrained.weights import cache_folder, find_weights, networks

    present: dict[str, Callable[[], object]] = {
        name: partial(find_weights, name) for name, network in networks.items() if network.is_present
    }
    for name, model in hub_models.items():
        if path := cached(model.address):
            present[name] = partial(check_digest, model.address, path)
    changed = []
    for name, verify in present.items():
        try:
            verify()
            print(f"{name}: unchanged")
        except UserError as error:
            changed.append(str(error))
    if changed:
        raise UserError("\n".join(changed))
    if not present:
        print(f"There are no weights in {cache_folder()} yet.")
