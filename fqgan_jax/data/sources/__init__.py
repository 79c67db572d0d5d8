"""Where images come from: random access by index. `open_source(name, split)` takes what users write after `--data`."""

from fqgan_jax.data.sources.source import Source, fingerprint, open_source, relative_name

__all__ = ["Source", "fingerprint", "open_source", "relative_name"]
