"""Turns a source into ArrayRecord shards, and looks at what a source holds."""
