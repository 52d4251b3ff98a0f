"""The cross entropy from which every voxelwise region loss is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast, get_args

import torch.nn.functional as F
from torch import Tensor

from multilevel_loss._checks import Reduction, check_choice
from multilevel_loss._reduce import mean_of, voxel_weights
from multilevel_loss._targets import Prepared
from multilevel_loss.losses.region._voxel_sums import VoxelSums, voxel_sums
from multilevel_loss.losses.region._voxel_sums_torch import focal_term


@dataclass(frozen=True)  # and no named tuple, whose properties torch 2.8 cannot trace
class CrossEntropy:
    """Cross entropies of each class that counts: summed over the voxels, (B, C'), or of each, (B, C', *spatial)."""

    positive: Tensor
    """v·(1−p)^γ·(−log p)."""
    negative: Tensor | None
    """(1−v)·p^γ·(−log(1−p)); None for a softmax, whose classes compete in `positive`."""
    members: Tensor
    """v."""
    weight: Tensor
    """By whose sum a mean of both divides: v for a softmax, else 1."""

    @property
    def loss(self) -> Tensor:
        """The sum of both."""
        return self.positive if self.negative is None else self.positive + self.negative


def first_of_cross_entropy(prepared: Prepared, include_background: bool) -> int:
    """Return the first class whose voxels a cross entropy counts: that of a softmax needs those of all classes.

    On the voxels of the background alone it says that a structure is too much: without them, more is always better.
    """
    return 0 if prepared.mode == "multiclass" else prepared.first_class(include_background)


def _from_class(first: int, of: CrossEntropy) -> CrossEntropy:
    if not first:
        return of
    positive, members, weight = (each[:, first:] for each in (of.positive, of.members, of.weight))
    return CrossEntropy(positive, None if of.negative is None else of.negative[:, first:], members, weight)


def summed_cross_entropy(prepared: Prepared, sums: VoxelSums, first_class: int) -> CrossEntropy:
    """Return the cross entropies that `sums` hold."""
    weight = sums.members if prepared.mode == "multiclass" else sums.voxels
    return _from_class(first_class, CrossEntropy(cast(Tensor, sums.positive), sums.negative, sums.members, weight))


def voxel_cross_entropy(
    prepared: Prepared, first_class: int, *, gamma: float = 0.0, weight: Tensor | None = None
) -> CrossEntropy:
    """Return the cross entropies of each voxel, times its weight (B, 1, *spatial) if that is given."""
    x, v = prepared.logits, prepared.target
    w = prepared.counts()
    if weight is not None:
        v, w = v * weight, w * weight
    p = prepared.probability() if gamma else x  # not looked at
    if prepared.mode == "multiclass":
        return _from_class(first_class, CrossEntropy(v * focal_term(-x.log_softmax(1), p, gamma), None, v, v))
    positive, negative = v * focal_term(F.softplus(-x), p, gamma), (w - v) * focal_term(F.softplus(x), 1 - p, gamma)
    return _from_class(first_class, CrossEntropy(positive, negative, v, w.expand_as(v)))


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
    return mean_of(loss.sum(), count.sum())
