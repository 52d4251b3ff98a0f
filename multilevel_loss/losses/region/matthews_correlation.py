"""Matthews correlation loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multilevel_loss._checks import Mode, Reduction
from multilevel_loss._module import as_module
from multilevel_loss._reduce import full_precision, reduce
from multilevel_loss._targets import prepare
from multilevel_loss.losses.region._counts import Average, Empty, SoftCounts, soft_counts
from multilevel_loss.losses.region._voxel_sums import voxel_sums


@full_precision
def matthews_correlation_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
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
    r"""Matthews correlation loss: one minus the correlation of prediction and truth over the voxels.

    .. math:: 1 - \frac{TP \cdot TN - FP \cdot FN}{\sqrt{(TP + FP)(TP + FN)(TN + FP)(TN + FN)}}

    with TP, FP, FN and TN the soft counts of a class. It weighs the voxels outside too, unlike overlap, without being
    dominated by them.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out.
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
        A float32 (float64 for float64 input) scalar in [0, 2] when averaged, 1 for no correlation; (B, C') for "none",
        where B = 1 with `batch` and C' = 1 with "micro".

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits. The correlation with a truth that is empty or full is not
        defined: there the loss is the mean error Σ |p − v| / N instead.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[[9.0, 9.0, -9.0, -9.0]]]])
        >>> round(matthews_correlation_loss(logits, torch.tensor([[[1, 0, 0, 0]]])).item(), 3)  # 1 − 2 / √12
        0.423

    Source:
        Abhishek and Hamarneh, Matthews correlation coefficient loss for deep convolutional networks (ISBI 2021).
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
    return reduce(1 - correlation(counts), counts.weight, reduction)


def correlation(counts: SoftCounts) -> Tensor:
    """Return the correlation coefficient of each entry of `counts`, or the mean agreement where it is not defined."""
    # By the covariance and the variances, in voxels: the products of the definition pass the range of float32.
    overlap, predicted, truth, voxels, _ = counts
    number = voxels.clamp_min(1)
    covariance = overlap - predicted * (truth / number)
    lost = torch.finfo(voxels.dtype).eps * number  # what rounding can make of a prediction that fills the image
    of_p = predicted.clamp_min(1e-12) * (voxels - predicted).clamp_min(lost) / number
    of_v = truth * (voxels - truth) / number
    defined = (truth > 0) & (voxels - truth > lost)
    agreement = 1 - (predicted + truth - 2 * overlap) / number
    return torch.where(defined, covariance / (of_p * torch.where(defined, of_v, 1)).sqrt(), agreement)


MatthewsCorrelationLoss = as_module("MatthewsCorrelationLoss", matthews_correlation_loss)
