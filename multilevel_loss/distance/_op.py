"""The operator `multilevel_loss::signed_distances`: one signature, one kernel for each kind of device."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor


@torch.library.custom_op("multilevel_loss::signed_distances", mutates_args=())
def signed_distances(inside: Tensor, spacing: Tensor | None, inner: bool) -> Tensor:
    """Return the exact signed Euclidean distances of a batch of masks, by plain torch operations on any device.

    Args:
        inside: contiguous bool masks D (N, *spatial), 1 to 3 spatial dimensions.
        spacing: mm, float64 (N, number of spatial dimensions), in the tensor's axis order; None means voxels.
        inner: True measures to the nearest voxel of the inner boundary ∂D (voxels of D with a face neighbour
            outside D), which gets 0. False measures to the nearest voxel of the other side, so that no voxel gets 0.

    Returns:
        float32 (N, *spatial), negative inside, positive outside, zeros for an empty or full mask.
    """
    from . import _torch

    return _torch.signed_distances(inside, spacing, inner)


@signed_distances.register_kernel("cpu")
def _(inside: Tensor, spacing: Tensor | None, inner: bool) -> Tensor:
    from . import _cpu  # here, so that importing the package does not import numba

    return _cpu.signed_distances(inside, spacing, inner)


@signed_distances.register_kernel("cuda")
def _(inside: Tensor, spacing: Tensor | None, inner: bool) -> Tensor:
    if find_spec("triton") is None:  # some ROCm and Windows builds of torch
        from . import _torch

        return _torch.signed_distances(inside, spacing, inner)
    from . import _cuda

    return _cuda.signed_distances(inside, spacing, inner)


@signed_distances.register_fake
def _(inside: Tensor, spacing: Tensor | None, inner: bool) -> Tensor:
    return torch.empty_like(inside, dtype=torch.float32)
