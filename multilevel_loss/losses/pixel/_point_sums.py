"""The cross entropies of points, summed in one pass over the points and one back."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from multilevel_loss._targets import Prepared
from multilevel_loss.losses.region._voxel_sums import is_disposable
from multilevel_loss.points import check_coords, has_kernels


class PointSums(NamedTuple):
    """Sums over the points of each sample that count, (B, C), of p and v the probability and membership of a class."""

    entropy: Tensor
    """Σ −v·log p for a softmax, else Σ −v·log p − (1−v)·log(1−p)."""
    weight: Tensor
    """By whose sum a mean divides: Σ v for a softmax, else Σ 1."""


def point_sums(prepared: Prepared, point_coords: Tensor) -> PointSums | None:
    """Return the sums at points (B, P, D), or None where there is no kernel for them.

    From here on `prepared.logits` takes the gradient of the points along: it is added to what the other losses made,
    not made by itself and as large as the logits.
    """
    logits = prepared.logits
    if logits.dtype != torch.float32 or not has_kernels(logits, point_coords):
        return None
    check_coords(point_coords, logits)
    given = logits, prepared.truth, prepared.mask, point_coords, prepared.mode == "multiclass"
    entropy, weight, prepared.logits = _JoinedSums.apply(*given)  # type: ignore[no-untyped-call]
    return PointSums(entropy, weight)


class _JoinedSums(torch.autograd.Function):
    """The sums, and the logits for all that is computed on them afterwards."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, truth: Tensor, mask: Tensor | None, point_coords: Tensor, softmax: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        from multilevel_loss.losses.pixel import _point_sums_cpu  # here, so that importing the package spares numba

        entropy, weight, ctx.p, ctx.v = _point_sums_cpu.sums(logits, truth, mask, point_coords, softmax)
        same_grid = truth.shape[2:] == logits.shape[2:]
        ctx.save_for_backward(point_coords, mask if same_grid else None)
        ctx.shape, ctx.softmax = logits.shape, softmax
        ctx.mark_non_differentiable(weight)
        ctx.set_materialize_grads(False)
        return entropy, weight, logits.view_as(logits)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, by_entropy: Tensor | None, _: None, by_logits: Tensor | None
    ) -> tuple[Tensor | None, None, None, None, None]:
        from multilevel_loss.losses.pixel import _point_sums_cpu

        if by_entropy is None:
            return by_logits, None, None, None, None
        if by_logits is None:
            by_logits = torch.zeros(ctx.shape, dtype=torch.float32)
        elif not is_disposable(by_logits):
            by_logits = by_logits.clone(memory_format=torch.contiguous_format)
        point_coords, mask = ctx.saved_tensors
        _point_sums_cpu.add_gradient(by_entropy, ctx.p, ctx.v, mask, point_coords, ctx.softmax, by_logits)
        return by_logits, None, None, None, None
