"""Addresses on the hub, and what is said when it does not give or take something."""

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from fqgan_jax.errors import UserError

PREFIX = "hf:"
_FORM = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^/@]+))?(/(?P<file>[^/@]+(/[^/@]+)*))?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubAddress:
    """A repository of models on the hub, or a file in it: `hf:OWNER/REPO[@REVISION][/FILE]`.

    Attributes:
      repository: OWNER/REPO.
      revision: a branch, a tag or a commit.
      file: path in the repository; "" for the repository itself.
    """

    repository: str
    revision: str = "main"
    file: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads an address.

        Raises:
          UserError: it has another form.
        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise UserError(f"{text} is no address on the hub: write hf:OWNER/REPO, hf:OWNER/REPO@REVISION/FILE, …")
        return cls(**{name: part for name, part in found.groupdict().items() if part})

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"{PREFIX}{self.repository}{revision}{self.file and '/'}{self.file}"

    @property
    def page(self) -> str:
        """Where a person finds it."""
        from huggingface_hub import constants

        kind = "blob" if self.file else "tree"
        return f"{constants.ENDPOINT}/{self.repository}/{kind}/{self.revision}/{self.file}".rstrip("/")


@contextmanager
def explained(address: HubAddress, *, task: str) -> Iterator[None]:
    """Turns the errors of the block, which asks the hub, into sentences.

    Args:
      address: what the block asks for.
      task: what fails, for the message: "download".

    Raises:
      UserError: the hub does not give or take it, or cannot be asked.
    """
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(f"Accept the terms of {address.repository} first: {address.page}.") from error
    except errors.RepositoryNotFoundError as error:  # also the answer about one that the token may not see
        raise UserError(
            f"The hub has no repository {address.repository} for you: check the name; if it is private, run "
            "`hf auth login` or set HF_TOKEN."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{address.repository} has no revision {address.revision}: see {address.page}.") from error
    except errors.OfflineModeIsEnabled as error:
        raise UserError(f"The {task} of {address} needs the hub, but HF_HUB_OFFLINE is set: unset it.") from error
    except errors.LocalEntryNotFoundError as error:
        raise UserError(f"{address} is not in the hub's cache, and {_why_not_asked(error)}") from error
    except (OSError, ValueError, RuntimeError, errors.HTTPError, errors.XetDownloadError) as error:
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            raise UserError(
                f"The hub does not allow the {task} of {address}: run `hf auth login`, or set HF_TOKEN."
            ) from error
        raise UserError(f"The {task} of {address} failed ({_first_line(error)}): run the command again.") from error


def _why_not_asked(error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error.__cause__, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set: unset it, or fetch it on a machine that shares the cache."
    reason = _first_line(error.__cause__ or error)
    return f"the hub cannot be asked ({reason}): check the connection, or set HF_ENDPOINT to a mirror."


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
