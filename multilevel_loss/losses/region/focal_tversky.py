"""Focal Tversky loss."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from multilevel_loss._checks import Mode, Reduction, check_number
from multilevel_loss._module import as_module
from multilevel_loss._reduce import full_precision, reduce
from multilevel_loss._targets import prepare
from multilevel_loss.losses.region._counts import Average, Empty, soft_counts
from multilevel_loss.losses.region._voxel_sums import voxel_sums
from multilevel_loss.losses.region.tversky import tversky_score


@full_precision
def focal_tversky_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 4 / 3,
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
    r"""Focal Tversky loss: the Tversky loss raised to a power that lifts the nearly right.

    .. math:: (1 - T)^{1 / \gamma}, \quad T = \frac{TP + \varepsilon_n}{TP + \alpha FP + \beta FN + \varepsilon_d}

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
        gamma: γ > 0; above 1 entries of small loss count for more, below 1 for less.
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
        Finite, with finite gradients, for any finite logits: where 1 − T is below 1e-6, its power is continued by
        the straight line to 0, whose slope is finite where that of the power is not.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[[9.0, 9.0, -9.0, -9.0]]]])
        >>> round(focal_tversky_loss(logits, torch.tensor([[[1, 0, 0, 0]]])).item(), 3)  # (0.3 / 1.3)^0.75
        0.333

    Source:
        Abraham and Khan, A novel focal Tversky loss function with improved attention U-Net for lesion segmentation
        (ISBI 2019), where γ from 1 to 3 is recommended and 4/3 used.
    """
    check_number("gamma", gamma, above=0)
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
    loss = finite_slope_power(1 - tversky_score(counts, alpha, beta, smooth_nr, smooth_dr), 1 / gamma)
    return reduce(loss, counts.weight, reduction)


def finite_slope_power(loss: Tensor, exponent: float) -> Tensor:
    """Return loss^exponent, continued below 1e-6 by the straight line to 0."""
    return loss * loss.clamp_min(1e-6) ** (exponent - 1)


FocalTverskyLoss = as_module("FocalTverskyLoss", focal_tversky_loss)
