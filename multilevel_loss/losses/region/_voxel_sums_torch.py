"""The sums of `_voxel_sums` in torch, on any device and for any floating dtype."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from multilevel_loss._targets import memberships


def focal_term(cross_entropy: Tensor, p: Tensor, gamma: float) -> Tensor:
    """Return (1−p)^γ·cross_entropy; its gradient is finite for p = 1 too, where (1−p)^(γ−1) may not be."""
    # Softmax may round to above 1.
    return cross_entropy * (1 - p).clamp_min(torch.finfo(p.dtype).tiny).pow(gamma) if gamma else cross_entropy


def whole_sums(
    x: Tensor,
    truth: Tensor,
    w: Tensor | None,
    field: Tensor | None,
    softmax: bool,
    squared: bool,
    gamma: float | None,
    errors: bool,
) -> tuple[Any, ...]:
    """Return the sums of `VoxelSums` of logits (B, C, N), for autograd to differentiate and a compiler to fuse."""
    p = x.softmax(1) if softmax else x.sigmoid()
    v = memberships(truth, x.shape[1], x.dtype)
    wv = _weighted(v, w)
    members = wv.sum(2)
    overlap = torch.linalg.vecdot(p, wv)
    predicted = _weighted(p.square() if squared else p, w).sum(2)
    of_squares = (wv * v).sum(2) if squared else members
    positive = negative = above = below = of_errors = None
    if gamma is not None and softmax:
        positive = (focal_term(-x.log_softmax(1), p, gamma) * wv).sum(2)
    elif gamma is not None:
        positive = (focal_term(-F.logsigmoid(x), p, gamma) * wv).sum(2)
        negative = (focal_term(-F.logsigmoid(-x), 1 - p, gamma) * _weighted(1 - v, w)).sum(2)
    if field is not None and errors:
        of_errors = (_weighted(field, w) * (p - v).square()).sum(2)
    elif field is not None:
        product = _weighted(p, w) * field
        above, below = product.clamp_min(0).sum(2), product.clamp_max(0).sum(2)
    voxels = torch.full_like(members, x.shape[2]) if w is None else w.sum(2).expand_as(members)
    return overlap, predicted, positive, negative, above, below, of_errors, of_squares, members, voxels


def farthest(field: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Return the greatest value (B, C) of a field (B, C, N) and of minus it, 1 where that is not above 0."""
    if field is None:
        return None, None
    if field.shape[2] == 0:
        return (one := field.new_ones(field.shape[:2])), one
    highest, deepest = field.amax(2), -field.amin(2)  # many times quicker than aminmax
    return torch.where(highest > 0, highest, 1), torch.where(deepest > 0, deepest, 1)


def sums(
    logits: Tensor,
    truth: Tensor,
    weight: Tensor | None,
    field: Tensor | None,
    softmax: bool,
    squared: bool,
    gamma: float | None,
    errors: bool,
    _: bool,
) -> tuple[tuple[Any, ...], None]:
    """Return `VoxelSums`, made part by part, so that nothing of the size of the logits is; none is kept."""
    of_parts = []
    for part in _parts(logits):
        w, f = _cut(weight, part), _cut(field, part)
        of_parts.append(whole_sums(logits[..., part], truth[..., part], w, f, softmax, squared, gamma, errors))
    added = (None if first is None else sum(others, first) for first, *others in zip(*of_parts, strict=True))
    return (*added, *farthest(None if errors else field)), None


def gradient(
    logits: Tensor,
    truth: Tensor,
    weight: Tensor | None,
    field: Tensor | None,
    softmax: bool,
    squared: bool,
    gamma: float | None,
    errors: bool,
    by_sums: Sequence[Tensor | None],
    _: None,
    place: Tensor | None,
) -> Tensor:
    """Return the gradient (B, C, N) by logits (B, C, *spatial), given that by the first sums, None for 0.

    It is written to `place` if that is given, which may be `field`.
    """
    logits = logits.flatten(2)
    asked = [number for number, by in enumerate(by_sums) if by is not None]
    result = torch.empty_like(logits) if place is None else place
    for part in _parts(logits):
        w, f = _cut(weight, part), _cut(field, part)
        with torch.enable_grad():
            x = logits[..., part].detach().requires_grad_()
            of_part = whole_sums(x, truth[..., part], w, f, softmax, squared, gamma, errors)
        (result[..., part],) = torch.autograd.grad([of_part[n] for n in asked], x, [by_sums[n] for n in asked])
    return result


def _weighted(values: Tensor, weight: Tensor | None) -> Tensor:
    return values if weight is None else values * weight


def _cut(values: Tensor | None, part: slice) -> Tensor | None:
    return None if values is None else values[..., part]


def _parts(logits: Tensor) -> Iterator[slice]:
    """Yield slices that divide the last axis of logits (B, C, N), on a CPU into what its cache holds."""
    batch, channels, voxels = logits.shape
    size = 2**18 if logits.device.type == "cpu" else 2**24
    step = max(size // max(batch * channels, 1), 1)
    for start in range(0, max(voxels, 1), step):
        yield slice(start, start + step)
