"""Reads trained models: their parameters, their description, and whether files are damaged."""
