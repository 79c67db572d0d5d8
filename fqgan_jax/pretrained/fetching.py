"""Brings published weights into the cache: download with resumption, check, convert once, all or nothing.

What lies on the Hugging Face hub comes through `fqgan_jax.hub`, the rest by a download of its own.
"""

import dataclasses
import http.client
import json
import logging
import re
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fqgan_jax.errors import UserError, check
from fqgan_jax.files import read_json, sha256_of
from fqgan_jax.hub import HubAddress, discard
from fqgan_jax.hub import download as download_from_hub
from fqgan_jax.pretrained.tensors import CONFIG, TENSORS, check_reader, read_tensors
from fqgan_jax.pretrained.weights import (
    HUB_FILES,
    SOURCE,
    FrozenNetwork,
    PackagedNetwork,
    by_hand,
    cache_folder,
    find_weights,
    networks,
)

_CHUNK = 2**20
_SECONDS = 30
_SLOWEST = 1024  # bytes per second, over so many seconds; a slower server is given up
_FEWEST_DIGITS = 8

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedFiles:
    """Where a network's files are, and what is published about them.

    Attributes:
      tensors: SHA-256 by address of each file that holds the tensors, the best one first.
      config: address of its config.json; "" if it needs none.
      commit: of the hub's repository; "" for other places.
    """

    tensors: dict[str, str]
    config: str = ""
    commit: str = ""


def fetch(name: str, file: Path | None = None, sha256: str | None = None) -> Path:
    """Puts a network into the cache, from where it is published or from a `file` at hand, and returns its folder.

    The file must have the SHA-256 that is known for it (its row's, or what the hub publishes) and `sha256` if given.
    A network that is there already is only checked, unless a file is given.

    Raises:
      UserError: no connection, a file that is not the published one, or one about which nothing is known.
    """
    network = networks[name]
    if isinstance(network, PackagedNetwork):
        check(file is None, f"The weights of {name} come in a package, not in a file: {network.page}.")
        return find_weights(name)
    if not (network.repository or network.sha256 or sha256):
        raise UserError(f"Nothing is known about the published file of {name}: give its SHA-256 with --sha256 HEX.")
    enough = not sha256 or re.fullmatch(f"[0-9a-fA-F]{{{_FEWEST_DIGITS},64}}", sha256)
    check(enough, f"--sha256 {sha256} is no SHA-256: give its 64 digits, at least the first {_FEWEST_DIGITS}.")
    sha256 = sha256.lower() if sha256 else None
    if file is None:
        return network.folder if _is_whole(network) else _fetch_published(network, sha256)
    if not file.is_file():
        raise UserError(f"There is no file {file}.")
    digest = _check(network, file, [sha256] if sha256 else _known_digests(network))
    config = file.with_name(CONFIG) if network.repository else None
    if config and not config.is_file():
        raise UserError(f"There is no {config}: {name} needs the {CONFIG} that is published beside {file.name}.")
    if config:
        read_json(config, remedy="get it again")
    return _install(network, file, config, {"file": str(file.resolve()), "sha256": digest})


def _is_whole(network: FrozenNetwork) -> bool:
    try:
        find_weights(network.name)
    except UserError:
        return False
    return True


def _fetch_published(network: FrozenNetwork, sha256: str | None) -> Path:
    folder = cache_folder() / "downloads" / network.name
    published = published_files(network)
    url, known = next(iter(published.tensors.items()))
    check_reader(url)
    path = _download(network, url, folder, commit=published.commit)
    try:
        digest = _check(network, path, [known], sha256)
    except UserError:
        discard(path)
        raise
    config = _fetch_config(network, published, folder) if published.config else None
    installed = _install(network, path, config, {"url": url, "sha256": digest})
    shutil.rmtree(folder, ignore_errors=True)  # there is none after a download from the hub
    return installed


def _download(network: FrozenNetwork, url: str, folder: Path, *, commit: str) -> Path:
    """Downloads from the hub's repository at a commit, or else into a folder."""
    if not commit:
        return download(network, url, folder)
    file = url.rsplit("/", 1)[-1]
    try:
        return download_from_hub(HubAddress(repository=network.repository, revision=commit, file=file))
    except UserError as error:
        raise UserError(f"{error} {by_hand(network)}") from error


def _fetch_config(network: FrozenNetwork, published: PublishedFiles, folder: Path) -> Path:
    """Downloads config.json; UserError if it is not the published one, or no JSON."""
    path = _download(network, published.config, folder, commit=published.commit)
    try:
        read_json(path, remedy="run the command again")
    except UserError:
        discard(path)
        raise
    return path


def published_files(network: FrozenNetwork) -> PublishedFiles:
    """Returns where the network's files are; asks the hub for those on it, whose addresses then hold the commit.

    Raises:
      UserError: the hub cannot be asked, or publishes no SHA-256 of such a file.
    """
    if not network.repository:
        return PublishedFiles(tensors={network.url: network.sha256})
    from huggingface_hub import HfApi, errors

    hub = HfApi()
    try:
        info = hub.model_info(network.repository, revision=network.revision, files_metadata=True, timeout=_SECONDS)
        published = {file.rfilename: str(file.lfs.sha256) for file in info.siblings or () if file.lfs}
    except (OSError, errors.HTTPError) as error:
        raise _unreachable(network, network.page, error) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # an answer that is no JSON, or another object
        raise UserError(f"The answer of the hub about {network.repository} is damaged ({error}): try again.") from error
    commit = f"{hub.endpoint}/{network.repository}/resolve/{info.sha}"
    known = {name: digest for name, digest in published.items() if re.fullmatch("[0-9a-f]{64}", digest)}
    tensors = {f"{commit}/{name}": known[name] for name in HUB_FILES if name in known}
    check(tensors, f"The hub publishes no SHA-256 of {' or '.join(HUB_FILES)} of {network.repository}.")
    return PublishedFiles(tensors=tensors, config=f"{commit}/{CONFIG}", commit=str(info.sha))


def _known_digests(network: FrozenNetwork) -> list[str]:
    try:
        return list(published_files(network).tensors.values())
    except UserError as error:
        raise UserError(
            f"Nothing is known here about the published file of {network.name}, and the hub cannot be asked: give the "
            f"SHA-256 that {network.page.replace('/resolve/', '/blob/')} shows, with --sha256 HEX."
        ) from error


def _check(network: FrozenNetwork, path: Path, known: Sequence[str], given: str | None = None) -> str:
    """SHA-256 of a file, which must begin as one of the known ones, as its row's and as the given one."""
    digest = sha256_of(path)
    for accepted in (known, [network.sha256], [given or ""]):
        if not any(digest.startswith(start) for start in accepted):
            expected = " or ".join(start if len(start) == len(digest) else f"{start}…" for start in accepted)
            raise UserError(
                f"{path} is not the published file of {network.name}: its SHA-256 is {digest}, not {expected}. It is "
                f"not used; download it again from {network.page}."
            )
    return digest


def download(network: FrozenNetwork, url: str, folder: Path) -> Path:
    """Downloads into a folder, with a progress bar; continues a transfer that broke off before.

    Raises:
      UserError: no connection, or one that broke off.
    """
    from tqdm import tqdm

    path = folder / url.rsplit("/", 1)[-1]
    if path.is_file():
        return path
    partial = path.with_name(f"{path.name}.partial")
    there = partial.stat().st_size if partial.is_file() else 0
    headers = {"User-Agent": "fqgan_jax"} | ({"Range": f"bytes={there}-"} if there else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_SECONDS) as response:
            # A server that does not know ranges sends the whole file again.
            there = there if response.status == http.client.PARTIAL_CONTENT else 0
            length = response.headers.get("Content-Length")
            total = there + int(length) if length else None
            folder.mkdir(parents=True, exist_ok=True)
            bar = tqdm(total=total, initial=there, unit="B", unit_scale=True, desc=f"{network.name}: {path.name}")
            with bar, partial.open("ab" if there else "wb") as file:
                since, received = time.monotonic(), 0
                while chunk := response.read1(_CHUNK):
                    bar.update(file.write(chunk))
                    received += len(chunk)
                    seconds = time.monotonic() - since
                    if seconds > _SECONDS:
                        if received < _SLOWEST * seconds:
                            raise ConnectionError(f"only {received} bytes came in {seconds:.0f} seconds")
                        since, received = time.monotonic(), 0
        if total and partial.stat().st_size < total:
            raise ConnectionError(f"it broke off after {partial.stat().st_size} of {total} bytes")
    except urllib.error.HTTPError as error:
        # The part is the whole file already; its SHA-256 is checked next.
        if not (there and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE):
            raise _unreachable(network, url, error) from error
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(network, url, error) from error
    return partial.replace(path)


def _unreachable(network: FrozenNetwork, url: str, error: Exception) -> UserError:
    reason = str(getattr(error, "reason", error)).splitlines()[0]
    return UserError(
        f"The download of {url} into {cache_folder()} failed ({reason}): run the command again to continue. "
        f"{by_hand(network)}"
    )


def _tell_what_is_known(network: FrozenNetwork, digest: str) -> None:
    """Warns if only the first digits of a file's SHA-256 are published, or if it is another file than before."""
    if network.sha256 and len(network.sha256) < len(digest):
        log.warning(
            "Only the first %d digits of the SHA-256 of %s are published; this file's is %s.",
            *(len(network.sha256), network.name, digest),
        )
    try:
        before = network.published_sha256 if network.is_present else digest
    except UserError:
        return  # the record is damaged, which is why the network is installed again
    if before != digest:
        log.warning("%s was another file when it was fetched before, with SHA-256 %s.", network.name, before)


def _install(network: FrozenNetwork, path: Path, config: Path | None, source: dict[str, str]) -> Path:
    """Converts a checked file to the cache's form; the network's folder appears whole or not at all."""
    from safetensors.numpy import save_file

    _tell_what_is_known(network, source["sha256"])
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=f".{network.name}-") as temporary:
        folder = Path(temporary) / network.name
        folder.mkdir()
        tensors = read_tensors(path, network.unused)
        # safetensors writes an array's memory as it lies, transposed or not.
        save_file({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}, folder / TENSORS)
        if config:
            shutil.copyfile(config, folder / CONFIG)
        files = {file.name: sha256_of(file) for file in sorted(folder.iterdir())}
        record = {"name": network.name, "license": network.license, "published": source, "files": files}
        (folder / SOURCE).write_text(json.dumps(record, indent=2))
        if network.folder.exists():
            shutil.rmtree(network.folder)
        folder.replace(network.folder)
    return network.folder
