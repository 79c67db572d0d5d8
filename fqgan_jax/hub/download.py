"""Downloads from the hub, by huggingface_hub: its cache, tokens (HF_TOKEN), mirrors (HF_ENDPOINT), offline mode.

A file is used only if its content has the hash that the hub gives: SHA-256 for large files, git's hash for small ones.
"""

import dataclasses
import hashlib
from pathlib import Path

from fqgan_jax.checkpoints.description import DESCRIPTION, PARAMETERS
from fqgan_jax.errors import UserError
from fqgan_jax.files import sha256_of
from fqgan_jax.hub.address import PREFIX, HubAddress, explained
from fqgan_jax.hub.models import hub_models
from fqgan_jax.interop.checkpoint_files import SUFFIXES
from fqgan_jax.storage import as_path


def local_checkpoint(path: str | Path) -> Path:
    """Returns where a checkpoint lies on this machine, after downloading it if it lies on the hub.

    Args:
      path: `hf:OWNER/REPO[@REVISION]` (an export folder), `hf:OWNER/REPO[@REVISION]/FILE` (a published file), the name
        of a row of `hub_models`, or a local path, which is returned as it is.

    Raises:
      UserError: the hub has no such checkpoint or cannot be asked, or a file is not what the hub says.
    """
    text = str(path)
    if text in hub_models and not Path(path).exists():
        return download(hub_models[text].address)
    if not text.startswith(PREFIX):
        return as_path(path)
    address = HubAddress.parse(text)
    return download(address) if address.file else _download_export(address)


def download(address: HubAddress) -> Path:
    """Returns the path of a file of a repository in the hub's cache, downloaded and checked.

    Raises:
      UserError: there is no such file, the hub cannot be asked, or the file is not what the hub says.
    """
    from huggingface_hub import errors, hf_hub_download

    with explained(address, task="download"):
        try:
            path = Path(hf_hub_download(address.repository, address.file, revision=address.revision))
        except errors.RemoteEntryNotFoundError as error:
            raise UserError(f"{address.repository} has no file {address.file}{_what_it_has(address)}.") from error
    check_digest(address, path)
    return path


def cached(address: HubAddress) -> Path | None:
    """Returns the path of a file in the hub's cache, unchecked; None if it was not downloaded."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(address.repository, address.file, revision=address.revision)
    return Path(found) if isinstance(found, str) else None


def check_digest(address: HubAddress, path: Path) -> str:
    """Returns the hash by which the hub knows a downloaded file, which the file's content must have.

    Raises:
      UserError: it has another one. The file is removed from the cache.
    """
    expected = _published_digest(address, path)
    found = sha256_of(path) if len(expected) == 64 else _git_hash(path.read_bytes())
    if found != expected:
        discard(path)
        raise UserError(
            f"{address} is not what the hub publishes: its hash is {found}, not {expected}. It is removed; run the "
            "command again."
        )
    return expected


def discard(path: Path) -> None:
    """Removes a damaged file; of a link, as the hub's cache has them, what it leads to as well."""
    path.resolve().unlink()
    path.unlink(missing_ok=True)


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _published_digest(address: HubAddress, path: Path) -> str:
    """The hash that the hub gives; its cache keeps it as the name of the file that a link in it leads to."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    if path.is_symlink():
        return path.readlink().name
    with explained(address, task="check"):
        url = hf_hub_url(address.repository, address.file, revision=address.revision)
        return get_hf_file_metadata(url).etag or ""


def _download_export(address: HubAddress) -> Path:
    """The folder of an export in the cache, with both of its files from one commit."""
    description = download(dataclasses.replace(address, file=DESCRIPTION))
    commit = description.parent.name
    return download(dataclasses.replace(address, revision=commit, file=PARAMETERS)).parent


def _what_it_has(address: HubAddress) -> str:
    """The end of a sentence about a file that is not there: the checkpoint files of the repository."""
    from huggingface_hub import HfApi

    files = HfApi().list_repo_files(address.repository, revision=address.revision)
    known = [str(dataclasses.replace(address, file=file)) for file in files if file.endswith(SUFFIXES)]
    return f": name one of {', '.join(known)}" if known else ", and no checkpoint file"
