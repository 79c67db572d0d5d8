"""Brings published weights into the cache: download with resumption, check, convert once, all or nothing."""

import http.client
import json
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fqgan_jax.errors import UserError, check
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
    sha256_of,
)

_CHUNK = 2**20
_SECONDS = 30


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
    if file is None:
        return network.folder if _is_whole(network) else _fetch_published(network, sha256)
    if not file.is_file():
        raise UserError(f"There is no file {file}.")
    digest = _check(network, file, [sha256] if sha256 else _known_digests(network))
    config = file.with_name(CONFIG) if network.repository else None
    if config and not config.is_file():
        raise UserError(f"There is no {config}: {name} needs the {CONFIG} that is published beside {file.name}.")
    return _install(network, file, config, {"file": str(file.resolve()), "sha256": digest})


def _is_whole(network: FrozenNetwork) -> bool:
    try:
        find_weights(network.name)
    except UserError:
        return False
    return True


def _fetch_published(network: FrozenNetwork, sha256: str | None) -> Path:
    folder = cache_folder() / "downloads" / network.name
    url, known = next(iter(published_files(network).items()))
    check_reader(url)
    path = download(network, url, folder)
    try:
        digest = _check(network, path, [known], sha256)
    except UserError:
        path.unlink()
        raise
    config = download(network, f"{url.rsplit('/', 1)[0]}/{CONFIG}", folder) if network.repository else None
    installed = _install(network, path, config, {"url": url, "sha256": digest})
    shutil.rmtree(folder)
    return installed


def published_files(network: FrozenNetwork) -> dict[str, str]:
    """Address of each file that holds the network's tensors, the best one first, and the SHA-256 published for it.

    Asks the hub for those on it; the addresses then hold the commit.
    """
    if not network.repository:
        return {network.url: network.sha256}
    from huggingface_hub import HfApi, errors

    hub = HfApi()
    try:
        info = hub.model_info(network.repository, revision=network.revision, files_metadata=True, timeout=_SECONDS)
    except (OSError, errors.HTTPError) as error:
        raise _unreachable(network, network.page, error) from error
    published = {file.rfilename: file.lfs.sha256 for file in info.siblings if file.lfs}
    commit = f"{hub.endpoint}/{network.repository}/resolve/{info.sha}"
    files = {f"{commit}/{name}": published[name] for name in HUB_FILES if name in published}
    if not files:
        raise UserError(f"The repository {network.repository} on the hub has none of {', '.join(HUB_FILES)}.")
    return files


def _known_digests(network: FrozenNetwork) -> list[str]:
    try:
        return list(published_files(network).values())
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
                while chunk := response.read(_CHUNK):
                    bar.update(file.write(chunk))
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


def _install(network: FrozenNetwork, path: Path, config: Path | None, source: dict[str, str]) -> Path:
    """Converts a checked file to the cache's form; the network's folder appears whole or not at all."""
    from safetensors.numpy import save_file

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
