"""The operator `multilevel_loss::signed_distances`: one signature, one kernel for each kind of device."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

# Defined and not made by `custom_op`, whose wrapper takes as long as the map of a small image.
_NAME = "multilevel_loss::signed_distances"
torch.library.define(
    _NAME, "(Tensor inside, Tensor? spacing, bool inner) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,)
)


@torch.library.impl(_NAME, "default")
def _(inside: Tensor, spacing: Tensor | None, inner: bool) -> Tensor:
    from . import _torch

    return _torch.signed_distances(inside, spacing, inner)


@torch.library.impl(_NAME, "cpu")
def _(inside: Tensor, spacing: Tensor | None, inner: bool) -> Tensor:
    from . import _cpu  # here, so that importing the package does not import numba

    return _cpu.signed_distances(inside, spacing, inner)


@torch.library.impl(_NAME, "cuda")
def _(inside: Tensor, spacing: Tensor | None, inner: bool) -> Tensor:
    if find_spec("triton") is None:  # some ROCm and Windows builds of torch
        from . import _torch

        return _torch.signed_distances(inside, spacing, inner)
    from . import _cuda

    return _cuda.signed_distances(inside, spacing, inner)


def _fake(inside: Tensor, spacing: Tensor | None, inner: bool) -> Tensor:
    return torch.empty_like(inside, dtype=torch.float32)


torch.library.register_fake(_NAME, _fake)


def signed_distances(inside: Tensor, spacing: Tensor | None, inner: bool) -> Tensor:
    """Return the exact signed Euclidean distances of a batch of masks.

    Args:
        inside: contiguous bool masks D (N, *spatial), 1 to 3 spatial dimensions.
        spacing: mm, float64 (N, number of spatial dimensions), in the tensor's axis order; None means voxels.
        inner: True measures to the nearest voxel of the inner boundary ∂D (voxels of D with a face neighbour
            outside D), which gets 0. False measures to the nearest voxel of the other side, so that no voxel gets 0.

    Returns:
        float32 (N, *spatial), negative inside, positive outside, zeros for an empty or full mask.
    """
    distances: Tensor = torch.ops.multilevel_loss.signed_distances.default(inside, spacing, inner)
    return distances
