"""Hausdorff loss by distance transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor

from multilevel_loss._checks import Mode, Reduction, Spacing, check_choice, check_number
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, reduce, voxel_weights
from multilevel_loss._targets import prepare
from multilevel_loss.distance.maps import distances_of


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
    p, truth = prepared.probability()[:, first:], prepared.target[:, first:]
    both = p.detach().gt(0.5).contiguous(), prepared.regions(first)
    # The distances are ours alone, so that the sum of their powers may take their place.
    d_p, d_v = (distances_of(region, spacing=spacing, side=side).to(p).pow_(alpha) for region in both)
    loss = _weighted_squares(p, truth, d_p.add_(d_v))
    share = voxel_weights(class_weights(weight, class_mask, prepared.logits, first), prepared.mask, loss)
    loss = reduce(loss, share, reduction)
    return loss.log1p() if log else loss


def _weighted_squares(p: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    if torch.compiler.is_compiling():  # which finds the memory to spare by itself
        return (p - truth).square() * weight
    return cast(Tensor, _WeightedSquares.apply(p, truth, weight))  # type: ignore[no-untyped-call]


class _WeightedSquares(torch.autograd.Function):
    """(p − truth)²·weight, in half the memory that its two operations take."""

    @staticmethod
    def forward(p: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        return (p - truth).square_().mul_(weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        """Keep the arguments."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        p, truth, weight = ctx.saved_tensors
        slope = (p - truth).mul_(weight).mul_(2)
        # In its place, unless autograd is to differentiate it as well.
        return slope * gradient if torch.is_grad_enabled() else slope.mul_(gradient), None, None


HausdorffDTLoss = as_module("HausdorffDTLoss", hausdorff_dt_loss)
