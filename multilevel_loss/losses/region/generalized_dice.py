"""Generalized Dice loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multilevel_loss._checks import Mode, Reduction
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, reduce
from multilevel_loss._targets import Prepared, prepare
from multilevel_loss.losses.region._counts import smooth_ratio, soft_counts
from multilevel_loss.losses.region._voxel_sums import voxel_sums


@full_precision
def generalized_dice_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
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
    r"""Generalized Dice loss: one overlap over all classes, each weighed by the inverse of its squared volume.

    .. math:: 1 - \frac{2 \sum_c w_c \sum p_c v_c + \varepsilon_n}
        {\sum_c w_c \sum (p_c + v_c) + \varepsilon_d}, \quad w_c = \Bigl( \sum v_c \Bigr)^{-2}

    with p the probability and v the membership of a class, summed over the voxels of a sample.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out.
        smooth_nr: ε of the numerator, from 0 to `smooth_dr`, in voxels of the smallest class.
        smooth_dr: ε of the denominator, at least 0, likewise.
        batch: sum over the samples of the batch as over voxels.
        sync: with `batch`, sum over the batches of all processes of a distributed training, too.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class, background included; multiplies its w_c.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar in [0, 1] when averaged; (B, 1) for "none", where B = 1 with
        `batch`.

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits. A class that is absent from the truth has weight 0; where
        all are, the loss is 0. With one channel this is the Dice loss of the structure: give two to count
        the background, as the paper does.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[[-9.0, -9.0, 9.0, 9.0]], [[9.0, 9.0, -9.0, -9.0]]]])
        >>> round(generalized_dice_loss(logits, torch.tensor([[[1, 0, 0, 0]]])).item(), 3)  # 1 − 2·(11/9)/(32/9)
        0.312

    Source:
        Sudre et al., Generalised Dice overlap as a deep learning loss function for highly unbalanced segmentations
        (DLMIA 2017). The weights are divided by the greatest, so that ε does not depend on the volumes.
    """
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
    return reduce(1 - score, share, reduction)


def generalized_dice_score(
    prepared: Prepared,
    *,
    include_background: bool,
    smooth_nr: float,
    smooth_dr: float,
    batch: bool,
    sync: bool,
    weight: Tensor | Sequence[float] | None,
    class_mask: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Return the generalized Dice score (B, 1) and the share of each in the loss, 0 where no class is labelled."""
    counts = soft_counts(
        prepared,
        voxel_sums(prepared),
        include_background=include_background,
        average="macro",
        batch=batch,
        sync=sync,
        empty="score",
        weight=None,
        class_mask=class_mask,
    )
    volume = counts.truth
    smallest = volume.masked_fill(volume == 0, torch.inf).amin(1, keepdim=True)
    of_class = torch.where(volume > 0, smallest / volume, 0).square()
    given = class_weights(weight, None, prepared.logits, prepared.first_class(include_background))
    if given is not None:
        of_class = of_class * given
    if counts.weight is not None:
        of_class = of_class * counts.weight
    overlap = (of_class * counts.overlap).sum(1, keepdim=True)
    both = (of_class * (counts.predicted + counts.truth)).sum(1, keepdim=True)
    labelled = None if counts.weight is None else counts.weight.amax(1, keepdim=True)
    return smooth_ratio(2 * overlap, both, smooth_nr, smooth_dr), labelled


GeneralizedDiceLoss = as_module("GeneralizedDiceLoss", generalized_dice_loss)
