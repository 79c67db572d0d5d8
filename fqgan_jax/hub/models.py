"""Models that their authors publish on the hub, by name."""

import dataclasses

from fqgan_jax.config import Registry
from fqgan_jax.hub.address import HubAddress


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubModel:
    """A published model.

    Attributes:
      address: its file on the hub.
      used_for: the kind of model.
      license: whose it is, and under which licence.
    """

    address: HubAddress
    used_for: str
    license: str


hub_models: Registry[HubModel] = Registry("published model")


def _add_tokenizer(name: str, file: str) -> None:
    address = HubAddress(repository="ZechenBai/FQGAN", file=file)
    # The release states a licence for its code, and none for the weights alone.
    hub_models.add(name, HubModel(address=address, used_for="tokenizer", license="its authors', CC-BY-NC-4.0"))


_add_tokenizer("fqgan-dual-f16", "fqgan_dual_ds16.pt")
_add_tokenizer("fqgan-triple-f16", "fqgan_triple_ds16.pt")
_add_tokenizer("fqgan-dual-f8", "fqgan_dual_ds8.pt")
_add_tokenizer("fqgan-triple-f8", "fqgan_triple_ds8.pt")
