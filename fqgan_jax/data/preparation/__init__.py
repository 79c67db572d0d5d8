"""Turns a source into ArrayRecord shards, and surveys the content of a source."""
