"""Losses of several levels at once, one file a loss."""
