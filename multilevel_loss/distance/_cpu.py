"""Exact signed distances on the CPU."""

from __future__ import annotations

import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from ._naive import inner_boundary


def signed_distances(inside: Tensor, spacing: Tensor | None, inner: bool) -> Tensor:
    """Return signed distances; `_op.signed_distances` explains the arguments."""
    out = torch.zeros_like(inside, dtype=torch.float32)
    for n, mask in enumerate(inside):
        if mask.any() and not mask.all():
            sampling = None if spacing is None else spacing[n].tolist()
            outer = inner_boundary(mask) if inner else mask
            out[n] = _distance_to(outer, sampling)
            out[n][mask] = 0 - (out[n] if inner else _distance_to(~mask, sampling))[mask]
    return out


def _distance_to(features: Tensor, sampling: list[float] | None) -> Tensor:
    return torch.from_numpy(distance_transform_edt(~features.numpy(), sampling=sampling)).float()
