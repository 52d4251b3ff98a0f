"""The definition of a signed distance map, by brute force: the truth that every kernel is tested against."""

from __future__ import annotations

import torch
from torch import Tensor


def signed_distances(inside: Tensor, spacing: Tensor | None, inner: bool) -> Tensor:
    """Return signed distances by comparing every pair of voxels; `_op.signed_distances` explains the arguments."""
    maps = [
        _signed_distance(mask, torch.ones(mask.ndim) if spacing is None else spacing[index], inner)
        for index, mask in enumerate(inside)
    ]
    return torch.stack(maps) if maps else inside.float()


def _signed_distance(mask: Tensor, spacing: Tensor, inner: bool) -> Tensor:
    if mask.all() or not mask.any():
        return torch.zeros_like(mask, dtype=torch.float32)
    if inner:
        to_boundary = _distance_to(inner_boundary(mask), spacing)
        return torch.where(mask, 0 - to_boundary, to_boundary).float()
    return (_distance_to(mask, spacing) - _distance_to(~mask, spacing)).float()


def inner_boundary(mask: Tensor) -> Tensor:
    """Return the voxels of `mask` (*spatial) with a face neighbour outside it; the image edge is no boundary."""
    boundary = torch.zeros_like(mask)
    for axis, size in enumerate(mask.shape):
        before, after = mask.narrow(axis, 0, size - 1), mask.narrow(axis, 1, size - 1)
        boundary.narrow(axis, 0, size - 1).logical_or_(before & ~after)
        boundary.narrow(axis, 1, size - 1).logical_or_(after & ~before)
    return boundary


def _distance_to(features: Tensor, spacing: Tensor) -> Tensor:
    offsets = (torch.ones_like(features).nonzero()[:, None] - features.nonzero()) * spacing.double()
    return offsets.square().sum(-1).amin(1).sqrt().view(features.shape)
