"""Losses that compare whole regions."""
