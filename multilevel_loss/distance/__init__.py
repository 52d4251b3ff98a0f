"""Exact signed distance maps: see README.md for the derivation, the conventions and the bounds."""

from .maps import distance_map, signed_distance_map

__all__ = ["distance_map", "signed_distance_map"]
