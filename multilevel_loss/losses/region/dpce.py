"""Distance-penalized cross-entropy loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multilevel_loss._checks import Mode, Reduction, Spacing
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision
from multilevel_loss._targets import prepare
from multilevel_loss.distance.maps import signed_distance_map
from multilevel_loss.losses.boundary.boundary import check_distance_map
from multilevel_loss.losses.region._cross_entropy import (
    first_of_cross_entropy,
    reduce_weighted,
    voxel_cross_entropy,
)


@full_precision
def dpce_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    distance_map: Tensor | None = None,
    spacing: Spacing | None = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Distance-penalized cross entropy: it counts up to twice as much towards the contour of the truth.

    .. math:: -\frac{1}{|\Omega|} \sum_x \sum_c (1 + \Phi_c(x)) v_c(x) \log p_c(x)

    with Φ the reversed distance to the contour, 1 on it and 0 where it is farthest, inside and outside alike; the
    binary cross entropy of each channel for sigmoid modes.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out for multilabel; a softmax needs all of its classes.
        distance_map: precomputed signed distance map (B, C, *spatial) in any unit, negative inside, that Φ is made
            of; computed when None.
        spacing: mm, in the axis order of the tensor (D, H, W): a number, one a spatial axis, or (B, number of axes);
            None measures in voxels.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class, background included; relative, since the mean divides by its sum.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar, at least 0; (B, C', *spatial) for "none", where a term of a
        multiclass loss is 0 off its class.

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits. A class that is absent or fills the image has no contour:
        Φ is 0. The mean divides by the number of voxels, not by 1 + Φ, so that the loss is between the cross entropy
        and twice it.

    Example:
        >>> import torch
        >>> logits, target = torch.zeros(1, 1, 5), torch.tensor([[0, 0, 1, 0, 0]])
        >>> round(dpce_loss(logits, target).item() / 0.6931, 2)  # Φ = 0, ½, 1, ½, 0
        1.4

    Source:
        Caliva et al., Distance map loss penalty term for semantic segmentation (MIDL 2019).
    """
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = first_of_cross_entropy(prepared, include_background)
    if distance_map is None:
        distance = signed_distance_map(prepared.target[:, first:], spacing=spacing).to(prepared.logits.dtype)
    else:
        distance = check_distance_map(distance_map, prepared)[:, first:]
    of = voxel_cross_entropy(prepared, first)
    return reduce_weighted(
        (1 + _nearness(distance)) * of.loss,
        of.weight,
        class_weights(weight, class_mask, prepared.logits, first),
        reduction,
    )


def _nearness(distance: Tensor) -> Tensor:
    """Return 1 on the contour to 0 at the farthest voxel of each side; 0 where there is no contour."""
    if distance.numel() == 0:
        return distance
    axes = tuple(range(2, distance.ndim))
    outside, inside = distance.amax(axes, keepdim=True), -distance.amin(axes, keepdim=True)
    farthest = torch.where(distance > 0, outside, inside)
    nearness = 1 - distance.abs() / torch.where(farthest > 0, farthest, 1)
    return torch.where(torch.maximum(outside, inside) > 0, nearness, 0)


DPCELoss = as_module("DPCELoss", dpce_loss)
