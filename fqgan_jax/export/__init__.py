"""Writes a trained model for another framework."""
