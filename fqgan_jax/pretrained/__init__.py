"""Frozen pretrained networks and their weights: teachers, LPIPS, Inception."""
