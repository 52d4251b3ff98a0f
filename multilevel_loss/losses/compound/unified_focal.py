"""Unified focal loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multilevel_loss._checks import Mode
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, reduce
from multilevel_loss._targets import prepare
from multilevel_loss.losses.region._counts import SoftCounts, soft_counts
from multilevel_loss.losses.region._cross_entropy import (
    first_of_cross_entropy,
    reduce_weighted,
    summed_cross_entropy,
)
from multilevel_loss.losses.region._voxel_sums import voxel_sums
from multilevel_loss.losses.region.focal_tversky import finite_slope_power
from multilevel_loss.losses.region.tversky import tversky_score


@full_precision
def unified_focal_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    focal_weight: float = 0.5,
    delta: float = 0.6,
    gamma: float = 0.5,
    smooth_nr: float = 1e-6,
    smooth_dr: float = 1e-6,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
) -> Tensor:
    r"""Unified focal loss, asymmetric: focal cross entropy and focal Tversky that spare the structures.

    .. math:: \lambda L_F + (1 - \lambda) L_T

    .. math:: L_F = -\frac{1}{|\Omega|} \sum \delta \, v_s \log p_s + (1 - \delta) v_b (1 - p_b)^\gamma \log p_b, \quad
        L_T = \text{mean} \bigl( (1 - T_s)^{1 - \gamma}, 1 - T_b \bigr)

    with s every structure, b the background, and T the Tversky score that weighs false negatives by δ and false
    positives by 1 − δ.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out of the overlap, and for multilabel of both terms; the
            softmax of the other needs all of its classes.
        focal_weight: λ, from 0 to 1.
        delta: δ, from 0 to 1: how much more a missed voxel of a structure counts than a false one.
        gamma: γ, at least 0 and below 1: how much the background fades in L_F, and the structures are enhanced in L_T.
        smooth_nr: ε of the numerator of T, from 0 to `smooth_dr`.
        smooth_dr: ε of its denominator, at least 0.
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
        Finite, with finite gradients, for any finite logits; where 1 − T is below 1e-6 its power is continued by the
        straight line to 0. Class 0 of a softmax is the background; a channel of the sigmoid modes is a structure
        with a background of its own.

    Example:
        >>> import torch
        >>> logits, target = torch.zeros(1, 1, 2, 2), torch.tensor([[[1, 0], [0, 0]]])
        >>> round(unified_focal_loss(logits, target).item(), 3)
        0.432

    Source:
        Yeung et al., Unified focal loss: generalising Dice and cross entropy-based losses to handle class imbalanced
        medical image segmentation (Computerized Medical Imaging and Graphics 2022).
    """
    for name, value in (("focal_weight", focal_weight), ("delta", delta), ("gamma", gamma)):
        if not 0 <= value <= 1 or (name == "gamma" and value == 1):
            raise ValueError(f"expected `{name}` to be from 0 to 1{', exclusive' * (name == 'gamma')}, got {value!r}")
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = first_of_cross_entropy(prepared, include_background)
    share = class_weights(weight, class_mask, prepared.logits, first)
    sums = voxel_sums(prepared, gamma=0.0)
    of, faded = (summed_cross_entropy(prepared, part, first) for part in (sums, voxel_sums(prepared, gamma=gamma)))
    counts = soft_counts(
        prepared,
        sums,
        include_background=include_background,
        average="macro",
        batch=False,
        sync=False,
        empty="score",
        weight=weight,
        class_mask=class_mask,
    )

    def tversky(counts: SoftCounts) -> Tensor:
        return 1 - tversky_score(counts, 1 - delta, delta, smooth_nr, smooth_dr)

    enhanced = finite_slope_power(tversky(counts), 1 - gamma)
    if faded.negative is None:  # softmax
        structure = torch.arange(prepared.logits.shape[1], device=prepared.device) > 0
        focal = torch.where(structure, delta * of.positive, (1 - delta) * faded.positive)
        overlap = torch.where(structure[prepared.first_class(include_background) :], enhanced, tversky(counts))
    else:
        focal = delta * of.positive + (1 - delta) * faded.negative
        overlap = (enhanced + tversky(_complement(counts))) / 2
    cross_entropy = reduce_weighted(focal, of.weight, share, "mean")
    return focal_weight * cross_entropy + (1 - focal_weight) * reduce(overlap, counts.weight, "mean")


def _complement(counts: SoftCounts) -> SoftCounts:
    """Return the counts of 1 − p and 1 − v."""
    overlap, predicted, truth, voxels, weight = counts
    return SoftCounts(voxels - predicted - truth + overlap, voxels - predicted, voxels - truth, voxels, weight)


UnifiedFocalLoss = as_module("UnifiedFocalLoss", unified_focal_loss)
