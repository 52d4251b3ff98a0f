"""Losses for segmenting small structures."""
