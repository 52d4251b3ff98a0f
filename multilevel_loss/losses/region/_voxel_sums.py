"""The sums over voxels that region losses are made of, in one pass over the logits and one back."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from multilevel_loss._targets import Prepared
from multilevel_loss.losses.region import _voxel_sums_torch


class VoxelSums(NamedTuple):
    """Sums over the voxels, each (B, C), of p and v the probability and membership of a class, ω a voxel's weight."""

    overlap: Tensor
    """Σ ω·p·v."""
    predicted: Tensor
    """Σ ω·p (or Σ ω·p²)."""
    truth: Tensor
    """Σ ω·v (or Σ ω·v²)."""
    members: Tensor
    """Σ ω·v."""
    voxels: Tensor
    """Σ ω."""
    positive: Tensor
    """Σ ω·v·(1−p)^γ·(−log p), the focal cross entropy of the voxels of the class; 0 when not asked for."""
    negative: Tensor
    """Σ ω·(1−v)·p^γ·(−log(1−p)), that of the others; 0 for softmax, whose classes compete in `positive`."""


def voxel_sums(
    prepared: Prepared, *, squared: bool = False, gamma: float | None = None, weight: Tensor | None = None
) -> VoxelSums:
    """Return the sums over the voxels of each sample; the activation made on the way stays with `prepared`.

    Args:
        prepared: the prediction and its target.
        squared: sum the squares of p and v.
        gamma: γ ≥ 0 of the cross entropies, 0 for the plain one; None leaves them out.
        weight: ω (B, 1, *spatial), at least 0; None for 1. A masked voxel has none in any case.
    """
    logits, options = prepared.logits, (prepared.mode == "multiclass", squared, gamma)
    if prepared.mask is not None:
        counts = prepared.mask.to(logits.dtype)
        weight = counts if weight is None else weight * counts
    weight = None if weight is None else weight.flatten(2)
    compute: Callable[..., tuple[Tensor, Tensor]]
    compute = _voxel_sums_torch.whole_sums if torch.compiler.is_compiling() else _FusedSums.apply
    p, sums = compute(logits.flatten(2), prepared.truth.flatten(2), weight, *options)
    prepared.activated = p.reshape(logits.shape)
    overlap, predicted, of_squares, members, positive, negative = sums.unbind()
    number = math.prod(logits.shape[2:])
    voxels = torch.full_like(members, number) if weight is None else weight.sum(2).expand_as(members)
    return VoxelSums(overlap, predicted, of_squares, members, voxels, positive, negative)


class _FusedSums(torch.autograd.Function):
    """The activation of logits (B, C, N) and the sums, (6, B, C) in the order of VoxelSums without `voxels`.

    Of what is as large as the logits, the activation alone is kept, and the gradient alone is made.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        truth: Tensor,
        weight: Tensor | None,
        softmax: bool,
        squared: bool,
        gamma: float | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.options = softmax, squared, gamma
        activated, sums = _kernels(logits).sums(logits, truth, weight, *ctx.options)
        ctx.save_for_backward(activated, truth, weight)
        ctx.set_materialize_grads(False)
        return activated, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_activated: Tensor | None, by_sums: Tensor | None) -> tuple[Tensor | None, ...]:
        activated, truth, weight = ctx.saved_tensors
        if by_sums is None:
            by_sums = activated.new_zeros((6, *activated.shape[:2]))
        gradient = _kernels(activated).gradient(activated, truth, weight, *ctx.options, by_activated, by_sums)
        return gradient, None, None, None, None, None


def _kernels(logits: Tensor) -> ModuleType:
    """Return the module of `sums` and `gradient` for logits like these."""
    few = logits.numel() < 2**16  # not worth the compilation
    if few or logits.device.type != "cpu" or logits.dtype != torch.float32:
        return _voxel_sums_torch
    from multilevel_loss.losses.region import _voxel_sums_cpu  # here, so that importing the package spares numba

    return _voxel_sums_cpu
