"""Object storage: `gs://`, `s3://` and every other protocol of fsspec, used like folders.

`as_path` is the door: it turns what a user writes into a `pathlib.Path` or an `ObjectPath`, which has the same methods.
"""

from fqgan_jax.storage.cache import cached_bytes, cached_result, local_copies, local_copy, set_cache
from fqgan_jax.storage.lease import is_leased, lease
from fqgan_jax.storage.paths import PARALLEL, ObjectPath, Stat, as_path, in_storage

__all__ = [
    "PARALLEL",
    "ObjectPath",
    "Stat",
    "as_path",
    "cached_bytes",
    "cached_result",
    "in_storage",
    "is_leased",
    "lease",
    "local_copies",
    "local_copy",
    "set_cache",
]
