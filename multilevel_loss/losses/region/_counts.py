"""The soft counts from which every overlap loss is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, distributed

from multilevel_loss._checks import Reduction, check_choice, check_number
from multilevel_loss._reduce import class_weights, reduce
from multilevel_loss._targets import Prepared, from_class
from multilevel_loss.losses.region._voxel_sums import VoxelSums

Average = Literal["macro", "micro"]
Empty = Literal["score", "skip"]


class SoftCounts(NamedTuple):
    """Sums over the voxels, of p and v the probabilities and memberships of a class.

    Each is (B, C), with B = 1 when counted over the batch and C = 1 when counted over the classes together.
    """

    overlap: Tensor
    """Σ p·v, the true positives."""
    predicted: Tensor
    """Σ p (or Σ p²), true and false positives."""
    truth: Tensor
    """Σ v (or Σ v²), true positives and false negatives."""
    voxels: Tensor
    """Σ 1."""
    weight: Tensor | None
    """The share of each entry in the reduced loss; None when all share alike."""


def soft_counts(
    prepared: Prepared,
    sums: VoxelSums,
    *,
    include_background: bool,
    average: Average,
    batch: bool,
    sync: bool,
    empty: Empty,
    weight: Tensor | Sequence[float] | None,
    class_mask: Tensor | None,
) -> SoftCounts:
    """Return the counts that an overlap loss is made of.

    Args:
        prepared: the prediction and its target.
        sums: their sums over the voxels.
        include_background: whether class 0 of several counts.
        average: "macro" counts each class by itself, "micro" all classes of an item together.
        batch: count all samples together.
        sync: with `batch`, count those of all processes together.
        empty: "skip" gives an entry with no truth weight 0, "score" treats it as any other.
        weight: (C,) class weights, background included.
        class_mask: (B, C), nonzero where a class is labelled.
    """
    check_choice("average", average, get_args(Average))
    first = prepared.first_class(include_background)
    counts = [from_class(first, count) for count in (sums.overlap, sums.predicted, sums.truth, sums.voxels)]
    share = class_weights(weight, class_mask, prepared.logits, first)
    together = [dim for dim, joined in ((0, batch), (1, average == "micro")) if joined]
    if sync and not batch:
        raise ValueError("expected `batch` to be True where `sync` is, got False")
    if together:
        if share is not None:
            counts = [count * share for count in counts]
            share = share.expand_as(counts[0]).amax(together, keepdim=True)
        counts = [count.sum(together, keepdim=True) for count in counts]
    if sync and distributed.is_available() and distributed.is_initialized():
        from torch.distributed.nn.functional import all_reduce  # importing it takes as long as half of torch

        counts = list(all_reduce(torch.stack(counts)).unbind())  # type: ignore[no-untyped-call]
        share = None if share is None else all_reduce(share, distributed.ReduceOp.MAX)  # type: ignore[no-untyped-call]
    overlap, predicted, truth, voxels = counts
    return SoftCounts(overlap, predicted, truth, voxels, present_weight(share, truth, empty))


def present_weight(weight: Tensor | None, truth: Tensor, empty: Empty) -> Tensor | None:
    """Return the weight of each entry, 0 for one without any truth when `empty` is "skip"."""
    check_choice("empty", empty, get_args(Empty))
    if empty == "score":
        return weight
    present = (truth > 0).to(truth.dtype)
    return present if weight is None else weight * present


def smooth_ratio(numerator: Tensor, denominator: Tensor, smooth_nr: float, smooth_dr: float) -> Tensor:
    """Return (numerator + smooth_nr) / (denominator + smooth_dr), and 1 where both regions are empty, 0 / 0."""
    check_number("smooth_nr", smooth_nr, minimum=0)
    check_number("smooth_dr", smooth_dr, minimum=0)
    if smooth_nr > smooth_dr:  # the score could pass 1, without bound as the denominator vanishes
        raise ValueError(f"expected `smooth_nr` to be at most `smooth_dr`, {smooth_dr!r}, got {smooth_nr!r}")
    denominator = denominator + smooth_dr
    if smooth_dr > 0:
        return (numerator + smooth_nr) / denominator
    empty = denominator == 0
    return torch.where(empty, 1, (numerator + smooth_nr) / torch.where(empty, 1, denominator))


def reduce_scores(score: Tensor, counts: SoftCounts, reduction: Reduction) -> Tensor:
    """Reduce the loss 1 − score of each entry of `counts`."""
    return reduce(1 - score, counts.weight, reduction)
