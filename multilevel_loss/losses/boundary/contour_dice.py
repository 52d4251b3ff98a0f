"""Contour Dice loss."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from multilevel_loss._checks import Mode, Reduction, check_number
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, reduce
from multilevel_loss._targets import prepare
from multilevel_loss.losses.boundary._morphology import dilate, inner_boundary
from multilevel_loss.losses.region._counts import smooth_ratio


@full_precision
def contour_dice_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    tolerance: int = 1,
    smooth_nr: float = 1e-6,
    smooth_dr: float = 1e-6,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Contour Dice loss: one minus the share of the two boundaries that lie within a tolerance of each other.

    .. math:: 1 - \frac{\sum \partial p \, (\partial v)_\tau + \sum \partial v \, (\partial p)_\tau + \varepsilon_n}
        {\sum \partial p + \sum \partial v + \varepsilon_d}

    with ∂x = x − its minimum over the face neighbours, and (∂x)_τ the maximum of ∂x over the τ voxels around along
    each axis. For binary p and v this is the normalized surface Dice, counted in boundary voxels.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out.
        tolerance: τ in voxels, at least 0.
        smooth_nr: ε of the numerator, from 0 to `smooth_dr`.
        smooth_dr: ε of the denominator, at least 0.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts; neither region reaches elsewhere.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class, background included; relative, since the mean divides by its sum.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar in [0, 1] when averaged; (B, C') for "none".

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits. Where neither region has a boundary the loss is 0. There
        is no gradient from a boundary farther than τ from the other but through the denominator. A NaN logit gives
        a NaN loss unless it is masked.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[-40.0, -40.0, 40.0, 40.0, 40.0, -40.0, -40.0, -40.0]]])
        >>> target = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 0]])  # one end agrees, the other is 2 voxels off
        >>> [round(contour_dice_loss(logits, target, tolerance=tau).item(), 2) for tau in (1, 2)]
        [0.5, 0.0]

    Source:
        Moltz et al., Learning a loss function for segmentation: a feasibility study (ISBI 2020), who train a network
        to predict the contour Dice coefficient; this computes a soft form of it directly, which is our reading.
    """
    check_number("tolerance", tolerance, minimum=0)
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = prepared.first_class(include_background)
    of_p, of_v = (inner_boundary(x[:, first:]) for x in (prepared.probability(), prepared.target))
    matched = of_p * dilate(of_v, tolerance) + of_v * dilate(of_p, tolerance)
    score = smooth_ratio(
        matched.flatten(2).sum(-1), of_p.flatten(2).sum(-1) + of_v.flatten(2).sum(-1), smooth_nr, smooth_dr
    )
    return reduce(1 - score, class_weights(weight, class_mask, prepared.logits, first), reduction)


ContourDiceLoss = as_module("ContourDiceLoss", contour_dice_loss)
