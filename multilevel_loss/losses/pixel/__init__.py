"""Losses over chosen points."""
