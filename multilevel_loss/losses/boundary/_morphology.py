"""Morphology of fuzzy regions: voxels and memberships (B, C, *spatial) in, the same out, differentiable."""

from __future__ import annotations

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def dilate(x: Tensor, radius: int) -> Tensor:
    """Return the maximum over the box that reaches `radius` voxels along each axis; the image edge adds nothing."""
    return reduce(lambda field, axis: _line_max(field, axis, radius), range(x.ndim - 2), x)


def inner_boundary(x: Tensor) -> Tensor:
    """Return x less its minimum over each voxel and its face neighbours: ∂D of a binary D, as eq. 7 has it."""
    neighbours = (_line_max(-x, axis, 1) for axis in range(x.ndim - 2))
    return x + reduce(torch.maximum, neighbours)


def _line_max(x: Tensor, axis: int, radius: int) -> Tensor:
    axes = x.ndim - 2
    kernel, padding = [1] * axes, [0] * axes
    kernel[axis], padding[axis] = 2 * radius + 1, radius
    return _MAX_POOL[axes](x, kernel, stride=1, padding=padding)
