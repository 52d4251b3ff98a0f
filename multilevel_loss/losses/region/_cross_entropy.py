"""The cross entropy from which every voxelwise region loss is made."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from multilevel_loss._checks import Reduction, check_choice
from multilevel_loss._reduce import voxel_weights
from multilevel_loss._targets import Prepared
from multilevel_loss.losses.region._voxel_sums import VoxelSums, voxel_sums
from multilevel_loss.losses.region._voxel_sums_torch import focal_term

Total = Literal["mean", "sum"]


class CrossEntropy(NamedTuple):
    """Cross entropies and what they are to be divided by, of each class that counts.

    Summed over the voxels, (B, C'), or of each voxel, (B, C', *spatial). The classes of a softmax compete: there, what
    is not of the class has no term of its own, and `negative` and `others` are 0.
    """

    positive: Tensor
    """v·(1−p)^γ·(−log p)."""
    negative: Tensor
    """(1−v)·p^γ·(−log(1−p))."""
    members: Tensor
    """v, the weight of `positive` in a mean."""
    others: Tensor
    """1−v, the weight of `negative` in a mean."""


def summed_cross_entropy(prepared: Prepared, sums: VoxelSums, first_class: int) -> CrossEntropy:
    """Return the cross entropies that `sums` hold."""
    others = torch.zeros_like(sums.members) if prepared.mode == "multiclass" else sums.voxels - sums.members
    terms = (sums.positive, sums.negative, sums.members, others)
    return CrossEntropy(*(term[:, first_class:] for term in terms))


def voxel_cross_entropy(
    prepared: Prepared, first_class: int, *, gamma: float = 0.0, weight: Tensor | None = None
) -> CrossEntropy:
    """Return the cross entropies of each voxel, times its weight (B, 1, *spatial) if that is given."""
    x, p, v = prepared.logits, prepared.probability(), prepared.membership()
    w: Tensor | float = 1.0 if prepared.mask is None else prepared.mask.to(x.dtype)
    if weight is not None:
        v, w = v * weight, w * weight
    if prepared.mode == "multiclass":
        positive = v * focal_term(-x.log_softmax(1), p, gamma)
        negative = others = torch.zeros_like(v)
    else:
        others = w - v
        positive, negative = v * focal_term(F.softplus(-x), p, gamma), others * focal_term(F.softplus(x), 1 - p, gamma)
    return CrossEntropy(*(term[:, first_class:] for term in (positive, negative, v, others)))


def cross_entropy(
    prepared: Prepared, first_class: int, reduction: Reduction, *, gamma: float = 0.0, weight: Tensor | None = None
) -> CrossEntropy:
    """Return the cross entropies of each voxel when they are not to be reduced, else their sums, which cost less."""
    if reduction == "none":
        return voxel_cross_entropy(prepared, first_class, gamma=gamma, weight=weight)
    return summed_cross_entropy(prepared, voxel_sums(prepared, gamma=gamma, weight=weight), first_class)


def reduce_weighted(loss: Tensor, count: Tensor, share: Tensor | None, reduction: Reduction) -> Tensor:
    """Reduce a loss that is weighted already, a mean being Σ share·loss / Σ share·count.

    Args:
        loss: sums (B, C') or terms of each voxel (B, C', *spatial).
        count: the weights that `loss` holds, of the same shape.
        share: the weight of each class, (B, C') or (1, C'); None for 1.
        reduction: "mean", "sum" or "none".
    """
    check_choice("reduction", reduction, get_args(Reduction))
    of_class = voxel_weights(share, None, loss)
    if of_class is not None:
        loss, count = loss * of_class, count * of_class
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    total = count.sum()
    return loss.sum() / torch.where(total > 0, total, 1)


def inverse(count: Tensor) -> Tensor:
    """Return 1 / `count`, and 0 where nothing was counted."""
    return torch.where(count > 0, 1 / torch.where(count > 0, count, 1), 0)
