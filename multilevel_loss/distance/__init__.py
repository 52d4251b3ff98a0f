"""Exact signed distance maps: see README.md for the derivation, the conventions and the bounds."""

from .cache import DistanceMapCache
from .maps import distance_map, signed_distance_map
from .transforms import DistanceMapDataset, SignedDistanceMapd

__all__ = ["DistanceMapCache", "DistanceMapDataset", "SignedDistanceMapd", "distance_map", "signed_distance_map"]
