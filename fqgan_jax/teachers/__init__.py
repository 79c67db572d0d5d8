"""Frozen networks (and one plain function) whose features supervise semantic sub-codebooks."""
