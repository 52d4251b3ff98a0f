"""Exact signed distances by plain torch operations, for devices without a kernel of their own.

The transform is separable: the squared distance to a set is reduced over one axis after another,
f'(x) = min over y of f(y) + (x − y)². Each reduction shifts the whole tensor once for every offset x − y, so nothing
is read back from the device and the cost grows with the voxels times the longest side.
"""

from __future__ import annotations

import torch
from torch import Tensor


def signed_distances(inside: Tensor, spacing: Tensor | None, inner: bool) -> Tensor:
    """Return signed distances without a host synchronisation; `_op.signed_distances` explains the arguments."""
    if inside.numel() == 0:
        return torch.zeros_like(inside, dtype=torch.float32)
    boundary = _inner_boundary(inside)
    to_boundary = _distance_to(boundary, spacing)
    if inner:
        return torch.where(inside, 0 - to_boundary, to_boundary)  # 0 - 0 is 0, -0 is -0
    # The voxel of D nearest to an outside voxel lies on ∂D, so only the inside needs a transform of its own.
    return torch.where(inside, 0 - _distance_to(~inside, spacing), to_boundary)


def _inner_boundary(inside: Tensor) -> Tensor:
    interior = inside.clone()
    for axis in range(1, inside.ndim):
        size = inside.shape[axis]
        interior.narrow(axis, 0, size - 1).logical_and_(inside.narrow(axis, 1, size - 1))
        interior.narrow(axis, 1, size - 1).logical_and_(inside.narrow(axis, 0, size - 1))
    return inside & ~interior


def _distance_to(features: Tensor, spacing: Tensor | None) -> Tensor:
    """Return the distance to the nearest True voxel, float32; zeros for a mask without one."""
    # MPS has no float64.
    real = torch.float32 if features.device.type == "mps" else torch.float64
    unreached: float
    if spacing is None:
        unreached = sum(size**2 for size in features.shape[1:])  # more than any squared distance in the image
        squared = features.new_full(features.shape, unreached, dtype=torch.int32 if unreached < 2**30 else torch.int64)
    else:
        unreached = torch.inf
        squared = features.new_full(features.shape, unreached, dtype=real)
    squared.masked_fill_(features, 0)
    for axis in range(1, features.ndim):
        reduced = squared.clone()
        size = features.shape[axis]
        for offset in range(1, size):
            if spacing is None:
                cost: Tensor | int = offset * offset
            else:
                step = spacing[:, axis - 1].to(features.device, real) * offset
                cost = step.square().view(-1, *[1] * (features.ndim - 1))
            for start, source in ((offset, 0), (0, offset)):
                target = reduced.narrow(axis, start, size - offset)
                torch.minimum(target, squared.narrow(axis, source, size - offset) + cost, out=target)
        squared = reduced
    return squared.masked_fill(squared >= unreached, 0).to(real).sqrt().float()
