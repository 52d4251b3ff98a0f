"""Hausdorff loss by erosion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from multilevel_loss._checks import Mode, Reduction, check_number
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, reduce, voxel_weights
from multilevel_loss._targets import prepare


@full_precision
def hausdorff_er_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    alpha: float = 2.0,
    erosions: int = 10,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Hausdorff loss by erosion: errors weighed by how many erosions they survive.

    .. math:: \frac{1}{|\Omega|} \sum_{k=1}^{K} k^\alpha \sum \left((p - v)^2 \ominus_k B\right)

    with B the cross of a voxel and its face neighbours. A soft erosion takes the mean over the cross (0 beyond the
    image), subtracts ½, sets what is negative to 0, and stretches what remains of each class to [0, 1].

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out.
        alpha: α, at least 0; the larger it is, the more the thickest errors count.
        erosions: K, at least 1; errors that survive K erosions are weighed alike.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts; the error is 0 elsewhere.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class, background included; relative, since the mean divides by its sum.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar, at least 0; (B, C', *spatial) for "none".

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits. Errors below ½ on the mean of every cross do not survive
        the first erosion: lone voxels, and p within 0.7 of v, cost nothing and have no gradient. A NaN logit gives a
        NaN loss unless it is masked.

    Example:
        >>> import torch
        >>> logits, target = torch.full((1, 1, 7, 7), -9.0), torch.zeros(1, 7, 7, dtype=torch.long)
        >>> logits[..., 2:5, 2:5] = 9.0  # the 1st erosion leaves 1 + 4·0.6 + 4·0.2, the 2nd 1, the 3rd nothing
        >>> round(hausdorff_er_loss(logits, target, reduction="sum").item(), 2)
        8.2

    Source:
        Karimi and Salcudean, Reducing the Hausdorff distance in medical image segmentation with convolutional
        neural networks (IEEE TMI 2020), in 1-D to 3-D.
    """
    check_number("alpha", alpha, minimum=0)
    check_number("erosions", erosions, minimum=1)
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = prepared.first_class(include_background)
    error = (prepared.probability() - prepared.target)[:, first:].square()
    spatial = tuple(range(2, error.ndim))
    loss = torch.zeros_like(error)
    for k in range(1, erosions + 1):
        error = (_cross_sum(error) / (2 * len(spatial) + 1) - 0.5).relu()
        least, most = error.amin(spatial, keepdim=True), error.amax(spatial, keepdim=True)
        # The bound keeps the slope finite over all erosions where hardly anything remains to be stretched.
        error = (error - least) / (most - least).clamp_min(1e-3)
        loss = loss + k**alpha * error
    share = voxel_weights(class_weights(weight, class_mask, prepared.logits, first), prepared.mask, loss)
    return reduce(loss, share, reduction)


def _cross_sum(x: Tensor) -> Tensor:
    return cast(Tensor, _CrossSum.apply(x))  # type: ignore[no-untyped-call]


class _CrossSum(torch.autograd.Function):
    """The sum over each voxel and its face neighbours: symmetric, so that it is its own gradient.

    Faster than a convolution, which has a path for single channels that is slow on the CPU.
    """

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        total = x.clone()
        for axis in range(2, x.ndim):
            last = x.shape[axis] - 1
            total.narrow(axis, 1, last).add_(x.narrow(axis, 0, last))
            total.narrow(axis, 0, last).add_(x.narrow(axis, 1, last))
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _cross_sum(gradient)


HausdorffERLoss = as_module("HausdorffERLoss", hausdorff_er_loss)
