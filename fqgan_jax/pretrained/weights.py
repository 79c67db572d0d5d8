"""Every frozen network: where its weights are published, under which licence, and where they lie here once fetched.

A network in the cache is a folder `weights/NAME` with its tensors, for vision transformers their config.json, and
source.json: where they came from and the SHA-256 of each file. Nothing is used that does not match it.
"""

import difflib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fqgan_jax.errors import UserError
from fqgan_jax.pretrained.tensors import CONFIG, TENSORS

SOURCE = "source.json"
# Files of a hub repository that may hold the tensors; the first one there is taken.
HUB_FILES = (TENSORS, "pytorch_model.bin")


@dataclass(frozen=True)
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
        if (self.folder / SOURCE).is_file():
            return json.loads((self.folder / SOURCE).read_text())["published"]["sha256"]
        return self.sha256 + "…" * (0 < len(self.sha256) < 64) or "the hub's own, asked when it is fetched"

    @property
    def folder(self) -> Path:
        """Where it lies in the cache."""
        return cache_folder() / self.name


def _clip(name: str, megabytes: int) -> FrozenNetwork:
    text = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")
    return FrozenNetwork(name, "teacher", "MIT", megabytes, repository=f"openai/{name}", unused=text)


def _dino(name: str, megabytes: int) -> FrozenNetwork:
    return FrozenNetwork(name, "teacher", "Apache-2.0", megabytes, repository=f"facebook/{name}")


_TABLE = (
    _clip("clip-vit-base-patch16", 599),
    _clip("clip-vit-base-patch32", 605),
    _clip("clip-vit-large-patch14", 1711),
    _dino("dinov2-small", 88),
    _dino("dinov2-base", 346),
    _dino("dinov2-large", 1217),
    _dino("dinov2-with-registers-small", 88),
    _dino("dinov2-with-registers-base", 346),
    _dino("dinov2-with-registers-large", 1217),
    FrozenNetwork(
        "vgg16",
        "perceptual loss",
        "BSD-3-Clause",
        553,
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
        sha256="397923af",  # the digits in the file's name; the rest is not published
        unused=("classifier.",),
    ),
    FrozenNetwork(
        "lpips-vgg16",
        "perceptual loss",
        "BSD-2-Clause",
        1,
        url="https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/vgg.pth",
        sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    ),
    FrozenNetwork(
        "inception-fid",
        "FID",
        "Apache-2.0",
        96,
        url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        sha256="6726825d",  # the digits in the file's name; the rest is not published
    ),
)
NETWORKS = {network.name: network for network in _TABLE}


def cache_folder() -> Path:
    """`$FQGAN_CACHE/weights`, or `~/.cache/fqgan_jax/weights`."""
    return Path(os.environ.get("FQGAN_CACHE") or Path.home() / ".cache" / "fqgan_jax") / "weights"


def network_named(name: str) -> FrozenNetwork:
    """The row of a name; UserError with the nearest one where there is none."""
    if name not in NETWORKS:
        near = difflib.get_close_matches(name, NETWORKS, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(NETWORKS)}."
        raise UserError(f"There is no frozen network {name!r}: {hint}")
    return NETWORKS[name]


def check_fetched(names: Sequence[str]) -> None:
    """Raises `UserError` naming all of the networks that are not in the cache."""
    missing = [name for name in names if not (network_named(name).folder / SOURCE).is_file()]
    if missing:
        network, command = NETWORKS[missing[0]], f"fqgan weights fetch {' '.join(missing)}"
        raise UserError(
            f"The weights of {', '.join(missing)} are not in {cache_folder()}: run `{command}`. {by_hand(network)}"
        )


def known_weights(names: Sequence[str]) -> dict[str, str]:
    """SHA-256 of the published files of those networks among `names` that are in the cache."""
    networks = [NETWORKS[name] for name in names if name in NETWORKS]
    return {network.name: network.published_sha256 for network in networks if (network.folder / SOURCE).is_file()}


def find_weights(name: str) -> Path:
    """Folder of a network in the cache, every file checked against its recorded SHA-256.

    Raises:
      UserError: an unknown name, weights that were not fetched, or files that changed since.
    """
    network = network_named(name)
    check_fetched([name])
    recorded = json.loads((network.folder / SOURCE).read_text())["files"]
    for file, digest in recorded.items():
        path = network.folder / file
        if not path.is_file() or sha256_of(path) != digest:
            raise UserError(f"{path} is not what was fetched: run `fqgan weights fetch {name}` to replace it.")
    return network.folder


def by_hand(network: FrozenNetwork) -> str:
    """How to get a network onto a machine without a network connection."""
    more, digest = (f" (and the {CONFIG} beside it)", " --sha256 HEX") if network.repository else ("", "")
    command = f"fqgan weights fetch {network.name} --from {network.file_name}{digest}"
    return f"Without a connection, download {network.page}{more} elsewhere, copy it here and run `{command}`."


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
