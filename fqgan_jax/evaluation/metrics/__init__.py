"""Metrics of image sets, of reconstructions and of codes."""
