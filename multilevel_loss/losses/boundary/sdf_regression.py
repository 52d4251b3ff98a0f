"""Regression of the signed distance map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor

from multilevel_loss._checks import Mode, Reduction, Spacing, check_choice
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, reduce
from multilevel_loss._targets import masked, prepare
from multilevel_loss.distance.maps import Boundary, signed_distance_map
from multilevel_loss.losses.boundary.boundary import check_distance_map

Penalty = Literal["l1+product", "l1", "mse"]


@full_precision
def sdf_regression_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    penalty: Penalty = "l1+product",
    distance_map: Tensor | None = None,
    spacing: Spacing | None = None,
    boundary: Boundary = "inner",
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Regression of the signed distance map, scaled to [−1, 1].

    .. math::

        \frac{1}{|\Omega|} \sum |\hat y - y|
        + \frac{1}{3} - \frac{\sum y \hat y}{\sum y \hat y + \sum y^2 + \sum \hat y^2}

    with ŷ = tanh(input) and y = −Φ, the scaled map of the truth, here positive inside.

    Args:
        input: raw output of the network (B, C, *spatial), 1-D to 3-D, any floating dtype; positive inside as logits
            are, so that its sign segments. Negate the output of a network that was trained the other way round.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1]; a voxel of membership above ½ lies inside.
        mode: "binary", "multiclass" or "multilabel", the meaning of the target's labels; None for binary when C = 1,
            multiclass otherwise. Each channel is regressed by itself.
        include_background: False leaves class 0 of several out.
        penalty: "l1+product" is the sum above, "l1" its first term, "mse" the mean of (ŷ − y)² instead.
        distance_map: precomputed map (B, C, *spatial), negative inside, scaled to [−1, 1] as by
            ``signed_distance_map(normalize="max")``; computed when None.
        spacing: mm, in the axis order of the tensor (D, H, W): a number, one a spatial axis, or (B, number of axes);
            None measures in voxels.
        boundary: where the map is 0; see :func:`multilevel_loss.signed_distance_map`.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class, background included; relative, since the mean divides by its sum.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar, at least 0; (B, C') for "none".

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite input. A class that is absent or fills the image has no
        boundary to regress, its map being 0 everywhere: it does not count. A NaN gives a NaN loss unless it is
        masked.

    Example:
        >>> import torch
        >>> target = torch.tensor([[0, 0, 1, 1, 1, 0]])
        >>> perfect = torch.atanh(torch.tensor([[[-0.999, -0.5, 0.0, 0.999, 0.0, -0.5]]]))
        >>> round(sdf_regression_loss(perfect, target).item(), 3)
        0.0

    Source:
        Xue et al., Shape-aware organ segmentation by predicting signed distance maps (AAAI 2020). The constant 1/3
        is ours, so that 0 is perfect, and so is the sign of the input.
    """
    check_choice("penalty", penalty, get_args(Penalty))
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = prepared.first_class(include_background)
    if distance_map is None:
        distance_map = signed_distance_map(
            prepared.target[:, first:], spacing=spacing, boundary=boundary, normalize="max"
        )
    else:
        distance_map = check_distance_map(distance_map, prepared)[:, first:]
    y, y_hat = -distance_map.to(prepared.logits.dtype), prepared.logits[:, first:].tanh()
    voxels: Tensor | int = math.prod(y.shape[2:])
    if prepared.mask is not None:
        y, y_hat = masked(y, prepared.mask), masked(y_hat, prepared.mask)
        voxels = prepared.mask.flatten(1).sum(1, keepdim=True).clamp_min(1)
    y, y_hat = y.flatten(2), y_hat.flatten(2)
    difference = y_hat - y
    loss = (difference.square() if penalty == "mse" else difference.abs()).sum(-1) / voxels
    if penalty == "l1+product":
        product, squares = (y * y_hat).sum(-1), (y.square() + y_hat.square()).sum(-1)
        loss = loss + 1 / 3 - (product + 1e-6) / (product + squares + 3e-6)
    bounded = (y != 0).any(-1).to(loss.dtype)
    share = class_weights(weight, class_mask, prepared.logits, first)
    return reduce(loss, bounded if share is None else bounded * share, reduction)


SDFRegressionLoss = as_module("SDFRegressionLoss", sdf_regression_loss)
