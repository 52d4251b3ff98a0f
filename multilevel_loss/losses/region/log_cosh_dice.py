"""Log-cosh Dice loss."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from multilevel_loss._checks import Mode, Reduction
from multilevel_loss._module import as_module
from multilevel_loss._reduce import full_precision, reduce
from multilevel_loss._targets import prepare
from multilevel_loss.losses.region._counts import Average, Empty, soft_counts
from multilevel_loss.losses.region._voxel_sums import voxel_sums
from multilevel_loss.losses.region.dice import dice_score


@full_precision
def log_cosh_dice_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
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
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Log-cosh Dice loss: the Dice loss, smoothed where it is small.

    .. math:: \log \cosh \Bigl( 1 - \frac{2 \sum p v + \varepsilon_n}{\sum p + \sum v + \varepsilon_d} \Bigr)

    with p the probability and v the membership of a class, summed over the voxels of a sample.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out.
        smooth_nr: ε of the numerator, from 0 to `smooth_dr`.
        smooth_dr: ε of the denominator, at least 0.
        average: "macro" takes the loss of each class, "micro" one loss over all classes of a sample together.
        batch: sum over the samples of the batch as over voxels.
        sync: with `batch`, sum over the batches of all processes of a distributed training, too.
        empty: "score" treats a class that is absent from the truth as any other, "skip" leaves it out of the mean.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class, background included; relative, since the mean divides by its sum.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar from 0 to log cosh 1 ≈ 0.434 when averaged; (B, C') for "none",
        where B = 1 with `batch` and C' = 1 with "micro".

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits. The gradient fades in proportion to the Dice loss.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[[9.0, 9.0, -9.0, -9.0]]]])
        >>> round(log_cosh_dice_loss(logits, torch.tensor([[[1, 0, 0, 0]]])).item(), 3)  # log cosh ⅓
        0.055

    Source:
        Jadon, A survey of loss functions for semantic segmentation (CIBCB 2020).
    """
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    counts = soft_counts(
        prepared,
        voxel_sums(prepared),
        include_background=include_background,
        average=average,
        batch=batch,
        sync=sync,
        empty=empty,
        weight=weight,
        class_mask=class_mask,
    )
    loss = (1 - dice_score(counts, smooth_nr, smooth_dr)).cosh().log()
    return reduce(loss, counts.weight, reduction)


LogCoshDiceLoss = as_module("LogCoshDiceLoss", log_cosh_dice_loss)
