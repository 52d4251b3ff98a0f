"""Boundary loss of a network that regresses the signed distance map."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from multilevel_loss._checks import Mode, Reduction
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, reduce, voxel_weights
from multilevel_loss._targets import prepare
from multilevel_loss.distance.maps import Boundary, signed_distance_map
from multilevel_loss.losses.boundary.boundary import check_distance_map


@full_precision
def boundary_regression_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    distance_map: Tensor | None = None,
    boundary: Boundary = "inner",
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Boundary loss of a regressed signed distance map, and the map's squared error.

    .. math:: \frac{1}{|\Omega|} \sum \sigma(f) \, \Phi + (f + \Phi)^2

    with f the prediction, positive inside, and Φ the signed distance map of the truth, negative inside.

    Args:
        input: f, the negative of a signed distance map in voxels (B, C, *spatial), 1-D to 3-D, any floating dtype;
            as a logit it is a segmentation, too.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1]; a voxel of membership above ½ lies inside.
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out.
        distance_map: precomputed Φ (B, C, *spatial) in voxels, any floating dtype; computed when None.
        boundary: where Φ is 0; see :func:`multilevel_loss.signed_distance_map`.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class, background included; relative, since the mean divides by its sum.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar; (B, C', *spatial) for "none".

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite for any finite input. Distances are in voxels whatever the spacing, so that σ(f) looks like a mask. A
        class that is absent or fills the image has the map 0, and so pulls f to 0.

    Example:
        >>> import torch
        >>> regressed = torch.tensor([[[2.0, 1.0, 0.0, -1.0, -2.0]]])  # −Φ of the target
        >>> target = torch.tensor([[1, 1, 1, 0, 0]])
        >>> round(boundary_regression_loss(regressed, target).item(), 3)  # the boundary loss alone
        -0.397

    Source:
        Eq. 12 of Liu et al., a mean over the voxels in both terms.
    """
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = prepared.first_class(include_background)
    regressed = prepared.logits[:, first:]
    if distance_map is None:
        distances = signed_distance_map(prepared.target[:, first:], boundary=boundary).to(regressed.dtype)
    else:
        distances = check_distance_map(distance_map, prepared)[:, first:]
    loss = prepared.probability()[:, first:] * distances + (regressed + distances).square()
    share = class_weights(weight, class_mask, prepared.logits, first)
    return reduce(loss, voxel_weights(share, prepared.mask, loss), reduction)


BoundaryRegressionLoss = as_module("BoundaryRegressionLoss", boundary_regression_loss)
