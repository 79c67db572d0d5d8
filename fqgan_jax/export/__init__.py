"""Writes trained models in the formats of other frameworks; a format is a row of `formats`."""

from fqgan_jax.export.formats import Export, ExportFormat, ReadmeText, formats

__all__ = ["Export", "ExportFormat", "ReadmeText", "formats"]
