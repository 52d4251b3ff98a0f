"""Cross entropy of a second head that predicts boundaries."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from multilevel_loss._reduce import class_weights, reduce
from multilevel_loss._targets import Prepared, masked
from multilevel_loss.losses.boundary._morphology import inner_boundary
from multilevel_loss.losses.compound._contour import complement, voxel_mean


def boundary_cross_entropy(
    prepared: Prepared,
    boundary_input: Tensor,
    *,
    include_background: bool,
    balanced: bool,
    class_mask: Tensor | None,
    weight: Tensor | Sequence[float] | None,
) -> Tensor:
    """Return the mean binary cross entropy of boundary logits (B, C, *spatial), or (B, 1, *spatial) for all classes.

    Args:
        prepared: the target whose boundaries these are.
        boundary_input: the logits.
        include_background: whether class 0 of several has a boundary that counts.
        balanced: weigh the voxels of the boundary by the share of the others, and the others by that of the boundary.
        class_mask: (B, C), nonzero where a class is labelled; one boundary for all classes needs them all.
        weight: (C,) class weights, background included; of no meaning for one boundary for all classes.
    """
    batch, channels, *grid = prepared.logits.shape
    if tuple(boundary_input.shape) not in [(batch, channels, *grid), (batch, 1, *grid)]:
        raise ValueError(
            f"expected `boundary_input` to have shape {(batch, channels, *grid)}, a boundary a class, or "
            f"{(batch, 1, *grid)}, got {tuple(boundary_input.shape)}"
        )
    first = prepared.first_class(include_background)
    truth = inner_boundary(prepared.target[:, first:])
    share = class_weights(weight, class_mask, prepared.logits, first)
    if boundary_input.shape[1] == channels:
        logits = boundary_input[:, first:]
    else:
        logits, truth = boundary_input, truth.amax(1, keepdim=True)
        share = class_weights(None, class_mask, prepared.logits, first)
        share = None if share is None else share.amin(1, keepdim=True)
    logits, known = logits.to(prepared.logits.dtype), None
    if prepared.mask is not None:
        # Beside a voxel that does not count, whether there is a boundary is not known.
        known = prepared.mask & (inner_boundary(prepared.mask.to(logits.dtype)) == 0)
        logits = masked(logits, known)
    loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    if balanced:
        off = voxel_mean(complement(truth, known), known).view(*truth.shape[:2], *[1] * len(grid))
        loss = loss * (truth * off + (1 - truth) * (1 - off))
    loss = voxel_mean(loss if known is None else masked(loss, known), known)
    if known is not None:
        counted = known.flatten(2).any(2).to(loss.dtype)
        share = counted if share is None else share * counted
    return reduce(loss, share, "mean")
