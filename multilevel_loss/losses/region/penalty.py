"""Penalty loss."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from multilevel_loss._checks import Mode, Reduction, check_number
from multilevel_loss._module import as_module
from multilevel_loss._reduce import full_precision, reduce
from multilevel_loss._targets import prepare
from multilevel_loss.losses.region.generalized_dice import generalized_dice_score


@full_precision
def penalty_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    k: float = 2.5,
    smooth_nr: float = 1e-6,
    smooth_dr: float = 1e-6,
    batch: bool = False,
    sync: bool = False,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Penalty loss: the generalized Dice loss with a further price on false negatives and false positives.

    .. math:: 1 - \frac{G}{1 + k (1 - G)}

    with G the generalized Dice score, the complement of :func:`generalized_dice_loss`.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out.
        k: the penalty, at least 0, where it is the generalized Dice loss.
        smooth_nr: ε of the numerator, from 0 to `smooth_dr`, in voxels of the smallest class.
        smooth_dr: ε of the denominator, at least 0, likewise.
        batch: sum over the samples of the batch as over voxels.
        sync: with `batch`, sum over the batches of all processes of a distributed training, too.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class, background included; multiplies its w_c in the score.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar in [0, 1] when averaged; (B, 1) for "none", where B = 1 with
        `batch`.

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits. Never below the generalized Dice loss, and of the same
        minimum. A class that is absent from the truth has weight 0; where all are, the loss is 0.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[[9.0, 9.0, -9.0, -9.0]]]])
        >>> round(penalty_loss(logits, torch.tensor([[[1, 0, 0, 0]]])).item(), 3)  # G = 2/3
        0.636

    Source:
        Yang, Kweon and Kim, Major vessel segmentation on X-ray coronary angiography using deep networks with a novel
        penalty loss function (MIDL 2019).
    """
    check_number("k", k, minimum=0)
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    score, share = generalized_dice_score(
        prepared,
        include_background=include_background,
        smooth_nr=smooth_nr,
        smooth_dr=smooth_dr,
        batch=batch,
        sync=sync,
        weight=weight,
        class_mask=class_mask,
    )
    return reduce(1 - score / (1 + k * (1 - score)), share, reduction)


PenaltyLoss = as_module("PenaltyLoss", penalty_loss)
