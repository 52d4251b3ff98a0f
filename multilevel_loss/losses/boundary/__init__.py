"""Losses that compare the boundaries of regions."""
