"""The Hugging Face hub: addresses `hf:OWNER/REPO`, checked downloads into its cache, uploads, published models."""

from fqgan_jax.hub.address import HubAddress
from fqgan_jax.hub.download import cached, check_digest, discard, download, local_checkpoint
from fqgan_jax.hub.models import HubModel, hub_models
from fqgan_jax.hub.upload import upload

__all__ = [
    "HubAddress",
    "HubModel",
    "cached",
    "check_digest",
    "discard",
    "download",
    "hub_models",
    "local_checkpoint",
    "upload",
]
