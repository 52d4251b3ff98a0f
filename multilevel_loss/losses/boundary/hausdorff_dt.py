"""Hausdorff loss by distance transforms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, cast

from torch import Tensor

from multilevel_loss._checks import Mode, Reduction, Spacing, check_choice, check_number
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, reduce, voxel_weights
from multilevel_loss._targets import above, from_class, prepare, regions
from multilevel_loss.distance.maps import distances_across
from multilevel_loss.losses.region._cross_entropy import reduce_weighted
from multilevel_loss.losses.region._voxel_sums import voxel_sums


@full_precision
def hausdorff_dt_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    alpha: float = 2.0,
    side: Literal["both", "inside"] = "both",
    log: bool = False,
    spacing: Spacing | None = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Hausdorff loss by distance transforms: errors weighed by how far they lie from both boundaries.

    .. math:: \frac{1}{|\Omega|} \sum (p - v)^2 \, (d_p^\alpha + d_v^\alpha)

    with d_p and d_v the distances to the other side of the border of the predicted (p > ½) and the true region.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1]; a voxel of membership above ½ lies inside.
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out.
        alpha: α, greater than 0; the larger it is, the more the largest errors count.
        side: "both" measures inside and outside of a region, "inside" takes the distance 0 outside (eq. 8).
        log: return log(1 + loss), after the reduction.
        spacing: mm, in the axis order of the tensor (D, H, W): a number, one a spatial axis, or (B, number of axes);
            None measures in voxels.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts; the prediction is taken to be right
            elsewhere.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class, background included; relative, since the mean divides by its sum.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar, at least 0, in voxels^α or mm^α; (B, C', *spatial) for "none".

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits. The distances are constants. A region that is empty or
        fills the image has distances 0; where both regions are so, there is no gradient. A NaN logit gives a NaN
        loss unless it is masked.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[9.0, -9.0, -9.0, 9.0]]])  # one true voxel, and one 3 voxels off
        >>> round(hausdorff_dt_loss(logits, torch.tensor([[1, 0, 0, 0]])).item(), 2)  # (1² + 3²) / 4
        2.5

    Source:
        Karimi and Salcudean, Reducing the Hausdorff distance in medical image segmentation with convolutional
        neural networks (IEEE TMI 2020); eq. 8 of Liu et al. is `side="inside"`, a mean here, and measured to the
        nearest voxel outside rather than on ∂D, so that a structure 2 voxels thin still counts.
    """
    check_number("alpha", alpha, above=0)
    check_choice("side", side, ("both", "inside"))
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = prepared.first_class(include_background)
    softmax = prepared.mode == "multiclass"
    make = partial(_weights, first=first, softmax=softmax, alpha=alpha, side=side, spacing=spacing)
    far = make(prepared.truth, prepared.logits.detach())
    share = class_weights(weight, class_mask, prepared.logits, first)
    if reduction == "none":
        loss = ((prepared.probability() - prepared.target).square() * far)[:, first:]
        loss = reduce(loss, voxel_weights(share, prepared.mask, loss), reduction)
    else:
        sums = voxel_sums(prepared, field=far, errors=True, make_field=make)
        of_class, voxels = from_class(first, cast(Tensor, sums.errors)), from_class(first, sums.voxels)
        loss = reduce_weighted(of_class, voxels, share, reduction)
    return loss.log1p() if log else loss


def _weights(
    truth: Tensor, logits: Tensor, *, first: int, softmax: bool, alpha: float, side: str, spacing: Spacing | None
) -> Tensor:
    """Return d_p^α + d_v^α of all classes, of the shape and dtype of `logits`, 0 for those before `first`.

    A masked voxel, whose logits are 0 and whose label is none, lies in no region.
    """
    # A sigmoid is above ½ where its logit is above 0.
    predicted = above(0.5, logits.softmax(1)) if softmax else above(0, logits)
    roots = []
    for inside in (predicted, regions(truth, logits.shape[1])):
        if first:
            inside[:, :first] = False
        distance, _ = distances_across(inside, spacing, inner=False)
        distance = distance.to(logits.dtype)
        if side == "inside":
            distance.clamp_(max=0)
        roots.append(distance if alpha == 2 else distance.abs_().pow_(alpha / 2))
    d_p, d_v = roots
    return d_p.square_().addcmul_(d_v, d_v)


HausdorffDTLoss = as_module("HausdorffDTLoss", hausdorff_dt_loss)
