"""The soft counts from which every overlap loss is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from multilevel_loss._checks import Reduction, check_choice, check_number
from multilevel_loss._reduce import class_weights, reduce
from multilevel_loss._targets import Prepared

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
    weight: Tensor | None
    """The share of each entry in the reduced loss; None when all share alike."""


def soft_counts(
    prepared: Prepared,
    probability: Tensor,
    *,
    include_background: bool,
    average: Average,
    batch: bool,
    empty: Empty,
    weight: Tensor | Sequence[float] | None,
    class_mask: Tensor | None,
    squared: bool = False,
) -> SoftCounts:
    """Count the overlap of probabilities and memberships (B, C, *spatial).

    Args:
        prepared: the prediction and its target.
        probability: the activated logits, 0 where masked.
        include_background: whether class 0 of several counts.
        average: "macro" counts each class by itself, "micro" all classes of an item together.
        batch: count all samples together.
        empty: "skip" gives an entry with no truth weight 0, "score" treats it as any other.
        weight: (C,) class weights, background included.
        class_mask: (B, C), nonzero where a class is labelled.
        squared: sum the squares of p and v in the denominator terms.
    """
    check_choice("average", average, get_args(Average))
    check_choice("empty", empty, get_args(Empty))
    first = prepared.first_class(include_background)
    p = probability[:, first:].flatten(2)
    v = prepared.membership()[:, first:].flatten(2)
    overlap = (p * v).sum(-1)
    predicted = (p.square() if squared else p).sum(-1)
    truth = (v.square() if squared else v).sum(-1)
    share = class_weights(weight, class_mask, prepared.logits, first)
    if share is not None:
        share = share.expand_as(truth)
    together = [dim for dim, joined in ((0, batch), (1, average == "micro")) if joined]
    if together:
        counts = [overlap, predicted, truth]
        if share is not None:
            counts = [count * share for count in counts]
        overlap, predicted, truth = (count.sum(together, keepdim=True) for count in counts)
        share = None if share is None else share.amax(together, keepdim=True)
    if empty == "skip":
        present = (truth > 0).to(truth.dtype)
        share = present if share is None else share * present
    return SoftCounts(overlap, predicted, truth, share)


def smooth_ratio(numerator: Tensor, denominator: Tensor, smooth_nr: float, smooth_dr: float) -> Tensor:
    """Return (numerator + smooth_nr) / (denominator + smooth_dr), and 1 where both regions are empty, 0 / 0."""
    check_number("smooth_nr", smooth_nr, minimum=0)
    check_number("smooth_dr", smooth_dr, minimum=0)
    if smooth_nr > smooth_dr:  # the score could pass 1, without bound as the denominator vanishes
        raise ValueError(f"expected `smooth_nr` to be at most `smooth_dr`, {smooth_dr!r}, got {smooth_nr!r}")
    denominator = denominator + smooth_dr
    empty = denominator == 0
    return torch.where(empty, 1, (numerator + smooth_nr) / torch.where(empty, 1, denominator))


def reduce_scores(score: Tensor, counts: SoftCounts, reduction: Reduction) -> Tensor:
    """Reduce the loss 1 − score of each entry of `counts`."""
    return reduce(1 - score, counts.weight, reduction)
