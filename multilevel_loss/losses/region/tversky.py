"""Tversky loss."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from multilevel_loss._checks import Mode, Reduction, check_number
from multilevel_loss._module import as_module
from multilevel_loss._reduce import full_precision
from multilevel_loss._targets import prepare
from multilevel_loss.losses.region._counts import Average, Empty, SoftCounts, reduce_scores, smooth_ratio, soft_counts
from multilevel_loss.losses.region._voxel_sums import voxel_sums


@full_precision
def tversky_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    alpha: float = 0.3,
    beta: float = 0.7,
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
    r"""Tversky loss: overlap with a price of its own for false positives and for false negatives.

    .. math:: 1 - \frac{TP + \varepsilon_n}{TP + \alpha FP + \beta FN + \varepsilon_d}

    with TP = Σ p v, FP = Σ p (1 − v) and FN = Σ (1 − p) v, p the probability and v the membership of a class.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out.
        alpha: α, the weight of false positives, at least 0.
        beta: β, the weight of false negatives, at least 0; one of the two is positive.
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
        A float32 (float64 for float64 input) scalar in [0, 1] when averaged; (B, C') for "none", where B = 1 with
        `batch` and C' = 1 with "micro".

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits. Where truth and prediction are both empty the loss is 0;
        where only the truth is, it is near 1 and its gradient vanishes as the prediction does. α = β = ½ is the
        Dice loss, α = β = 1 the IoU loss.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[[9.0, 9.0, -9.0, -9.0]]]])
        >>> round(tversky_loss(logits, torch.tensor([[[1, 0, 0, 0]]])).item(), 3)  # one false positive: 0.3 / 1.3
        0.231

    Source:
        Salehi et al., Tversky loss function for image segmentation using 3D fully convolutional deep networks (MLMI
        2017).
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
    return reduce_scores(tversky_score(counts, alpha, beta, smooth_nr, smooth_dr), counts, reduction)


def tversky_score(counts: SoftCounts, alpha: float, beta: float, smooth_nr: float, smooth_dr: float) -> Tensor:
    """Return TP / (TP + α·FP + β·FN) of each entry of `counts`."""
    check_number("alpha", alpha, minimum=0)
    check_number("beta", beta, minimum=0)
    check_number("alpha + beta", alpha + beta, above=0)
    # FP = Σp − TP and FN = Σv − TP, gathered so that no two large sums are subtracted where α + β = 1.
    denominator = alpha * counts.predicted + beta * counts.truth + (1 - alpha - beta) * counts.overlap
    return smooth_ratio(counts.overlap, denominator, smooth_nr, smooth_dr)


TverskyLoss = as_module("TverskyLoss", tversky_loss)
