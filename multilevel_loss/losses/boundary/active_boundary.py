"""Active boundary loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from multilevel_loss._checks import Mode, Reduction, Spacing, check_number, check_spacing
from multilevel_loss._module import as_module
from multilevel_loss._reduce import full_precision, reduce
from multilevel_loss._targets import prepare
from multilevel_loss.distance.maps import distance_map


@full_precision
def active_boundary_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    share: float = 0.01,
    theta: float = 20.0,
    label_smoothing: float = 0.2,
    spacing: Spacing | None = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Active boundary loss: the predicted boundary moves, a voxel a step, along the shortest way to the true one.

    .. math:: \frac{1}{|S|} \sum_{x \in S} \frac{\min(d(x), \theta)}{\theta} \, \text{CE} \Bigl(
        \operatorname{softmax}_{y \in N(x)} \text{KL}(p(x) \,\|\, p(y)), \; \arg\min_{y \in N(x)} d(y) \Bigr)

    with S the predicted boundary, the voxels whose class probabilities differ most from their face neighbours', N(x)
    the neighbours of x (8 in 2-D, 26 in 3-D), and d the distance to the true boundary. Each voxel of S should differ
    most from the neighbour that lies nearest to the true boundary.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1]; a voxel of membership above ½ belongs to a class.
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise. Multiclass looks at all classes together.
        share: the greatest share of voxels taken for the predicted boundary, greater than 0.
        theta: θ, greater than 0, beyond which distance weighs no more; in voxels, or mm with `spacing`.
        label_smoothing: what of the target direction is spread over all of them, from 0 to below 1.
        spacing: mm, in the axis order of the tensor (D, H, W): a number, one a spatial axis, or (B, number of axes);
            None measures in voxels.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar, at least 0; (B, 1), or (B, C) for multilabel, for "none".

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits; 0 where the prediction is flat, or the truth has no
        boundary. The boundary and the neighbours' probabilities are constants. A NaN logit gives a NaN loss unless it
        is masked.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 16, 16, dtype=torch.long)
        >>> target[:, :, 10:] = 1
        >>> column = torch.arange(16.0)
        >>> losses = [active_boundary_loss((column - x).expand(1, 1, 16, 16), target, share=0.1) for x in (9.5, 3.5)]
        >>> bool(losses[0] < losses[1])
        True

    Source:
        Wang et al., Active boundary loss for semantic segmentation (AAAI 2022). Boundaries are taken to both sides of
        a face, and neighbours at equal distance share the target, so that flips of the image change nothing.
    """
    check_number("share", share, above=0)
    check_number("theta", theta, above=0)
    check_number("label_smoothing", label_smoothing, minimum=0)
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    x, inside, counts = prepared.logits, prepared.target > 0.5, prepared.mask
    batch, channels, *grid = x.shape
    steps = check_spacing(spacing, batch, len(grid), x.device)
    if prepared.mode == "multiclass":
        log_p = x.log_softmax(1)
    else:  # each channel is an image of two classes
        x, inside = x.flatten(0, 1).unsqueeze(1), inside.flatten(0, 1).unsqueeze(1)
        log_p = F.logsigmoid(torch.cat([-x, x], 1))
        counts = None if counts is None else counts.repeat_interleave(channels, 0)
        steps = None if steps is None else steps.repeat_interleave(channels, 0)
    with torch.no_grad():
        strength, edge = _boundaries(log_p, inside, counts)
        distance = distance_map(edge, spacing=steps, side="outside").to(x.dtype).flatten(1)
        strongest, here = strength.flatten(1).topk(math.ceil(min(share, 1.0) * math.prod(grid)))
        near, valid = _neighbors(here, grid)
        if counts is not None:
            valid = valid & counts.flatten(1).gather(1, near.flatten(1)).view_as(near)
        ahead = distance.gather(1, near.flatten(1)).view_as(near).masked_fill(~valid, math.inf)
        nearest = valid & (ahead == ahead.amin(-1, keepdim=True))
        direction = (1 - label_smoothing) * _share(nearest, x.dtype) + label_smoothing * _share(valid, x.dtype)
        push = (distance.gather(1, here) / theta).clamp_max(1)
        moves = (strongest > _FLAT).to(x.dtype)
    log_here = _at(log_p, here).unsqueeze(-1)
    log_near = _at(log_p.detach(), near.flatten(1)).view(*log_p.shape[:2], *near.shape[1:])
    divergence = (log_here.exp() * (log_here - log_near)).sum(1).masked_fill(~valid, torch.finfo(x.dtype).min)
    cross_entropy = -(direction * divergence.log_softmax(-1).masked_fill(~valid, 0)).sum(-1)
    loss = (moves * push * cross_entropy).sum(1) / moves.sum(1).clamp_min(1)
    return reduce(loss.view(batch, 1 if prepared.mode == "multiclass" else channels), None, reduction)


_FLAT = 1e-5
"""The divergence of face neighbours up to which there is no boundary between them."""


def _boundaries(log_p: Tensor, inside: Tensor, counts: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return how much each voxel differs from its face neighbours in prediction, and from how many in truth.

    Args:
        log_p: (N, K, *spatial), logarithms of probabilities.
        inside: (N, C, *spatial) bool, the classes of each voxel.
        counts: (N, 1, *spatial) bool, True where a voxel counts; None when all do.
    """
    strength = torch.zeros_like(log_p[:, :1])
    edge = torch.zeros_like(strength)
    for axis in range(2, log_p.ndim):
        last = log_p.shape[axis] - 1
        (a, b), (u, v) = ((x.narrow(axis, 0, last), x.narrow(axis, 1, last)) for x in (log_p, inside))
        gap, differ = ((b.exp() - a.exp()) * (b - a)).sum(1, keepdim=True), (u != v).any(1, keepdim=True).to(a.dtype)
        if counts is not None:
            both = counts.narrow(axis, 0, last) & counts.narrow(axis, 1, last)
            gap, differ = gap.masked_fill(~both, 0), differ.masked_fill(~both, 0)
        for start in (0, 1):  # either side of the face
            strength.narrow(axis, start, last).add_(gap)
            edge.narrow(axis, start, last).add_(differ)
    return strength, edge


def _neighbors(here: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the flat indices (N, k, J) of all neighbours of voxels (N, k), and which of them lie in the image."""
    offsets = [offset for offset in product(*[(-1, 0, 1)] * len(grid)) if any(offset)]
    near, valid, stride = torch.zeros_like(here).unsqueeze(-1), torch.ones_like(here, dtype=torch.bool).unsqueeze(-1), 1
    for axis in range(len(grid) - 1, -1, -1):
        steps = torch.tensor([offset[axis] for offset in offsets], device=here.device)
        position = (here // stride % grid[axis]).unsqueeze(-1) + steps
        valid = valid & (position >= 0) & (position < grid[axis])
        near = near + position.clamp(0, grid[axis] - 1) * stride
        stride *= grid[axis]
    return near, valid


def _at(x: Tensor, index: Tensor) -> Tensor:
    """Return x (N, K, *spatial) at flat indices (N, k), as (N, K, k)."""
    return x.flatten(2).gather(2, index.unsqueeze(1).expand(-1, x.shape[1], -1))


def _share(chosen: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 1 over the number chosen along the last axis, where chosen."""
    return chosen.to(dtype) / chosen.sum(-1, keepdim=True).clamp_min(1)


ActiveBoundaryLoss = as_module("ActiveBoundaryLoss", active_boundary_loss)
