"""The sums of `_voxel_sums` in torch, on any device and for any floating dtype."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from multilevel_loss._targets import memberships


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
    return _focus(p, gamma) * (gamma * p * p.clamp(tiny, 1).log() / (1 - p).clamp_min(tiny) - 1)


def whole_sums(
    x: Tensor, truth: Tensor, w: Tensor | None, softmax: bool, squared: bool, gamma: float | None
) -> tuple[Tensor, Tensor]:
    """Return the activation and the sums, for autograd to differentiate and a compiler to fuse."""
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


def sums(
    logits: Tensor, truth: Tensor, weight: Tensor | None, softmax: bool, squared: bool, gamma: float | None
) -> tuple[Tensor, Tensor]:
    """Return what `whole_sums` does, part by part, so that nothing else of the size of the logits is made."""
    activated = torch.empty_like(logits)
    of_parts = []
    for part in _parts(logits):
        w = None if weight is None else weight[..., part]
        activated[..., part], of_part = whole_sums(logits[..., part], truth[..., part], w, softmax, squared, gamma)
        of_parts.append(of_part)
    return activated, torch.stack(of_parts).sum(0)


def gradient(
    activated: Tensor,
    truth: Tensor,
    weight: Tensor | None,
    softmax: bool,
    squared: bool,
    gamma: float | None,
    by_activated: Tensor | None,
    by_sums: Tensor,
) -> Tensor:
    """Return the gradient with respect to the logits, given those with respect to the results of `sums`."""
    result = torch.empty_like(activated)
    by_overlap, by_predicted, _, _, by_positive, by_negative = by_sums.unsqueeze(-1)
    for part in _parts(activated):
        p, w = activated[..., part], None if weight is None else weight[..., part]
        v = memberships(truth[..., part], p.shape[1], p.dtype)
        by_log_p = _weighted(by_overlap * v + (2 * by_predicted * p if squared else by_predicted), w)
        if by_activated is not None:
            by_log_p = by_log_p + by_activated[..., part]
        by_log_p = by_log_p * p
        if gamma is not None:
            by_log_p += by_positive * _weighted(v, w) * _focal_slope(p, gamma)
        if softmax:
            result[..., part] = by_log_p - p * by_log_p.sum(1, keepdim=True)
            continue
        result[..., part] = by_log_p * (1 - p)
        if gamma is not None:
            result[..., part] -= by_negative * _weighted(1 - v, w) * _focal_slope(1 - p, gamma) * p
    return result


def _weighted(values: Tensor, weight: Tensor | None) -> Tensor:
    return values if weight is None else values * weight


def _parts(logits: Tensor) -> Iterator[slice]:
    """Yield slices that divide the last axis of logits (B, C, N), on a CPU into what its cache holds."""
    batch, channels, voxels = logits.shape
    size = 2**18 if logits.device.type == "cpu" else 2**24
    step = max(size // max(batch * channels, 1), 1)
    for start in range(0, max(voxels, 1), step):
        yield slice(start, start + step)
