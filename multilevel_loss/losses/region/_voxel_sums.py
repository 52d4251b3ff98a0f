"""The sums over voxels that region losses are made of, in one pass over the logits and one back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from multilevel_loss._targets import Prepared, memberships


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
    # What a compiler can fuse needs no parts.
    sums_of: Callable[..., tuple[Tensor, Tensor]]
    sums_of = _sums if torch.compiler.is_compiling() else _SumsByParts.apply
    p, sums = sums_of(logits.flatten(2), prepared.truth.flatten(2), weight, *options)
    prepared.activated = p.reshape(logits.shape)
    overlap, predicted, truth, members, positive, negative = sums.unbind()
    voxels = (
        torch.full_like(members, math.prod(logits.shape[2:])) if weight is None else weight.sum(2).expand_as(members)
    )
    return VoxelSums(overlap, predicted, truth, members, voxels, positive, negative)


def focal_term(cross_entropy: Tensor, p: Tensor, gamma: float) -> Tensor:
    """Return (1−p)^γ·cross_entropy; its gradient is finite for p = 1 too, where (1−p)^(γ−1) may not be."""
    return cross_entropy * _focus(p, gamma) if gamma else cross_entropy


def _focus(p: Tensor, gamma: float) -> Tensor:
    # Softmax may round to above 1.
    return (1 - p).clamp_min(torch.finfo(p.dtype).tiny).pow(gamma)


def _focal_slope(p: Tensor, gamma: float) -> Tensor | float:
    """Return the derivative of (1−p)^γ·(−log p) by log p."""
    if not gamma:
        return -1.0
    tiny = torch.finfo(p.dtype).tiny
    # Where p underflows, p·log p is 0 whatever stands for the logarithm; −log p / (1−p) goes to 1 as p does.
    return _focus(p, gamma) * (gamma * p * p.clamp_min(tiny).log() / (1 - p).clamp_min(tiny) - 1)


def _sums(
    x: Tensor, truth: Tensor, w: Tensor | None, softmax: bool, squared: bool, gamma: float | None
) -> tuple[Tensor, Tensor]:
    """Return the activation of logits (B, C, N) and the sums, stacked in the order of VoxelSums without `voxels`."""
    p = x.softmax(1) if softmax else x.sigmoid()
    v = memberships(truth, x.shape[1], x.dtype)
    wv = _weighted(v, w)
    members = wv.sum(2)
    overlap = (p * wv).sum(2)
    predicted = _weighted(p.square() if squared else p, w).sum(2)
    of_squares = (wv * v).sum(2) if squared else members
    positive = negative = torch.zeros_like(members)
    if gamma is not None and softmax:
        # −log p by way of the greatest p, which cannot underflow.
        cross_entropy = (x.amax(1, keepdim=True) - x) - p.amax(1, keepdim=True).log()
        positive = (focal_term(cross_entropy, p, gamma) * wv).sum(2)
    elif gamma is not None:
        least = F.softplus(-x.abs())
        positive = (focal_term(least + (-x).relu(), p, gamma) * wv).sum(2)
        negative = (focal_term(least + x.relu(), 1 - p, gamma) * _weighted(1 - v, w)).sum(2)
    return p, torch.stack([overlap, predicted, of_squares, members, positive, negative])


class _SumsByParts(torch.autograd.Function):
    """`_sums` in pieces that a CPU keeps in its cache, forward and backward.

    Nothing of the size of the logits is made but their activation and their gradient.
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
        activated = torch.empty_like(logits)
        sums = []
        for part in _parts(logits):
            w = None if weight is None else weight[..., part]
            p, of_part = _sums(logits[..., part], truth[..., part], w, softmax, squared, gamma)
            activated[..., part] = p
            sums.append(of_part)
        ctx.save_for_backward(activated, truth, weight)
        ctx.options = softmax, squared, gamma
        ctx.set_materialize_grads(False)
        return activated, torch.stack(sums).sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_activated: Tensor | None, by_sums: Tensor | None) -> tuple[Tensor | None, ...]:
        activated, truth, weight = ctx.saved_tensors
        softmax, squared, gamma = ctx.options
        gradient = torch.empty_like(activated)
        for part in _parts(activated):
            p, w = activated[..., part], None if weight is None else weight[..., part]
            by_log_p = torch.zeros_like(p) if by_activated is None else by_activated[..., part] * p
            by_log_rest = None
            if by_sums is not None:
                by_overlap, by_predicted, _, _, by_positive, by_negative = by_sums.unsqueeze(-1)
                v = memberships(truth[..., part], p.shape[1], p.dtype)
                by_p = by_overlap * v + (2 * by_predicted * p if squared else by_predicted)
                by_log_p += _weighted(by_p, w) * p
                if gamma is not None:
                    by_log_p += by_positive * _weighted(v, w) * _focal_slope(p, gamma)
                    if not softmax:
                        by_log_rest = by_negative * _weighted(1 - v, w) * _focal_slope(1 - p, gamma)
            if softmax:
                gradient[..., part] = by_log_p - p * by_log_p.sum(1, keepdim=True)
            else:
                gradient[..., part] = by_log_p * (1 - p)
                if by_log_rest is not None:
                    gradient[..., part] -= by_log_rest * p
        return gradient, None, None, None, None, None


def _weighted(values: Tensor, weight: Tensor | None) -> Tensor:
    return values if weight is None else values * weight


def _parts(logits: Tensor) -> Iterator[slice]:
    """Yield slices that divide the last axis of logits (B, C, N)."""
    batch, channels, voxels = logits.shape
    size = 2**18 if logits.device.type == "cpu" else 2**24
    step = max(size // max(batch * channels, 1), 1)
    for start in range(0, max(voxels, 1), step):
        yield slice(start, start + step)
