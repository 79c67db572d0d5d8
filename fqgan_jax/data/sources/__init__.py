"""Image sources: random access to images by index.

`open_source(name, split)` opens what users write after `--data`. Each kind of source is a class with a row in
`sources`; the order of the imports below is the order in which the rows are tried.
"""

from fqgan_jax.data.sources.folder import ImageFolder
from fqgan_jax.data.sources.photos import BundledPhotos
from fqgan_jax.data.sources.records import RecordFolder
from fqgan_jax.data.sources.source import (
    Source,
    described,
    fingerprint,
    open_source,
    relative_name,
    source_state,
    sources,
)
from fqgan_jax.data.sources.splits import EmptySplitError
from fqgan_jax.data.sources.tars import TarShards
from fqgan_jax.data.sources.tfds import TfdsSource

__all__ = [
    "BundledPhotos",
    "EmptySplitError",
    "ImageFolder",
    "RecordFolder",
    "Source",
    "TarShards",
    "TfdsSource",
    "described",
    "fingerprint",
    "open_source",
    "relative_name",
    "source_state",
    "sources",
]
