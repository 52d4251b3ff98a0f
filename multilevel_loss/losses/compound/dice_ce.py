"""Dice and cross entropy."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from multilevel_loss._checks import Mode, check_number
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, scaled
from multilevel_loss._targets import prepare
from multilevel_loss.losses.region._counts import Average, Empty, reduce_scores, soft_counts
from multilevel_loss.losses.region._cross_entropy import (
    first_of_cross_entropy,
    reduce_weighted,
    summed_cross_entropy,
)
from multilevel_loss.losses.region._voxel_sums import voxel_sums
from multilevel_loss.losses.region.dice import dice_score


@full_precision
def dice_ce_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    dice_weight: float = 1.0,
    ce_weight: float = 1.0,
    squared: bool = False,
    smooth_nr: float = 1e-6,
    smooth_dr: float = 1e-6,
    average: Average = "macro",
    batch: bool = False,
    sync: bool = False,
    empty: Empty = "score",
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
) -> Tensor:
    r"""Dice and cross-entropy loss.

    .. math:: \lambda_D \, \text{Dice}(p, v) + \lambda_C \, \text{CE}(p, v)

    with :func:`dice_loss` and :func:`cross_entropy_loss`, taken in one pass over the logits.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out of Dice, and for multilabel of both terms; the softmax
            of the other needs all of its classes.
        dice_weight: λ_D, at least 0.
        ce_weight: λ_C, at least 0.
        squared: sum p² and v² in the denominator of Dice (V-Net).
        smooth_nr: ε of the numerator of Dice, from 0 to `smooth_dr`.
        smooth_dr: ε of its denominator, at least 0.
        average: "macro" takes the Dice loss of each class, "micro" one over all classes of a sample together.
        batch: sum over the samples of the batch as over voxels, for Dice.
        sync: with `batch`, sum over the batches of all processes of a distributed training, too.
        empty: "score" treats a class that is absent from the truth as any other, "skip" leaves it out of the mean of
            Dice.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class in both terms, background included; relative: the means divide by its sum.

    Returns:
        A float32 (float64 for float64 input) scalar, at least 0.

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits. Cross entropy gives Dice the gradient it lacks where a
        class is absent.

    Example:
        >>> import torch
        >>> logits, target = torch.zeros(1, 1, 2, 2), torch.tensor([[[1, 0], [0, 0]]])
        >>> round(dice_ce_loss(logits, target).item(), 3)  # ⅔ + log 2
        1.36

    Source:
        Isensee et al., nnU-Net (Nature Methods 2021).
    """
    check_number("dice_weight", dice_weight, minimum=0)
    check_number("ce_weight", ce_weight, minimum=0)
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = first_of_cross_entropy(prepared, include_background)
    sums = voxel_sums(prepared, squared=squared, gamma=0.0)
    counts = soft_counts(
        prepared,
        sums,
        include_background=include_background,
        average=average,
        batch=batch,
        sync=sync,
        empty=empty,
        weight=weight,
        class_mask=class_mask,
    )
    dice = reduce_scores(dice_score(counts, smooth_nr, smooth_dr), counts, "mean")
    of = summed_cross_entropy(prepared, sums, first)
    share = class_weights(weight, class_mask, prepared.logits, first)
    cross_entropy = reduce_weighted(of.loss, of.weight, share, "mean")
    return scaled(dice_weight, dice) + scaled(ce_weight, cross_entropy)


DiceCELoss = as_module("DiceCELoss", dice_ce_loss)
