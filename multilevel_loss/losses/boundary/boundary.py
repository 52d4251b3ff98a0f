"""Boundary loss."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, cast

import torch.nn.functional as F
from torch import Tensor

from multilevel_loss._checks import Mode, Reduction, Spacing, check_choice
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, reduce, voxel_weights
from multilevel_loss._targets import Prepared, from_class, masked, prepare, regions
from multilevel_loss.distance.maps import Boundary, bounded, signed_distances_of
from multilevel_loss.losses.region._cross_entropy import reduce_weighted
from multilevel_loss.losses.region._voxel_sums import voxel_sums


@full_precision
def boundary_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    distance_map: Tensor | None = None,
    spacing: Spacing | None = None,
    boundary: Boundary = "inner",
    normalize: Literal["max"] | None = None,
    clip: float | None = None,
    offset: Literal["optimal"] | None = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Boundary loss: the probability weighed by the signed distance to the true boundary.

    .. math:: \frac{1}{|\Omega|} \sum p \, \Phi

    with Φ the signed distance map of the truth, negative inside.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1]; a voxel of membership above ½ lies inside.
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out.
        distance_map: precomputed map (B, C, *spatial), negative inside, any floating dtype; computed when None.
        spacing: mm, in the axis order of the tensor (D, H, W): a number, one a spatial axis, or (B, number of axes);
            None measures in voxels.
        boundary: where a computed map is 0; see :func:`multilevel_loss.signed_distance_map`, as for the next two.
        normalize: scaling of the map, a given one as well.
        clip: bound on the absolute distance, likewise.
        offset: "optimal" subtracts the least value the loss can take, so that 0 is perfect; the gradient is the same.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class, background included; relative, since the mean divides by its sum.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar in the unit of the map, negative for a good prediction unless
        `offset` is given; (B, C', *spatial) for "none".

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite for any finite logits; a class that is absent or fills the image has the map 0 and so no gradient.
        The map is a constant. Alone, the loss may collapse to the empty prediction: add it to a region loss, as
        :class:`multilevel_loss.MLLoss` does. A NaN logit gives a NaN loss unless it is masked.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[9.0, 9.0, 9.0, -9.0, -9.0]]])
        >>> target = torch.tensor([[1, 1, 1, 0, 0]])
        >>> round(boundary_loss(logits, target).item(), 2)
        -0.6
        >>> round(boundary_loss(logits, target, offset="optimal").item(), 2)
        0.0

    Source:
        Eqs. 6 and 7 of Liu et al., from Kervadec et al., Boundary loss for highly unbalanced segmentation (MIDL
        2019). Their sum is a mean here; their map is `boundary="kervadec"`.
    """
    check_choice("offset", offset, (None, "optimal"))
    check_choice("normalize", normalize, (None, "max"))
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = prepared.first_class(include_background)
    make = None
    if distance_map is None:
        make = partial(_map_of, first=first, spacing=spacing, boundary=boundary, clip=clip)
        field = make(prepared.truth, prepared.logits)
    else:
        field = check_distance_map(distance_map, prepared)
        if first:
            field = F.pad(field[:, first:], [0, 0] * (field.ndim - 2) + [first, 0])
        field = bounded(field, normalize=None, clip=clip)
    distances = from_class(first, field)
    if reduction == "none":
        distances = bounded(distances, normalize=normalize, clip=None)
    best = None
    if offset == "optimal":
        best = distances.clamp_max(0)
        best = best if prepared.mask is None else masked(best, prepared.mask)
    share = class_weights(weight, class_mask, prepared.logits, first)
    if reduction == "none":
        loss = prepared.probability()[:, first:] * distances
        loss = loss if best is None else loss - best
        return reduce(loss, voxel_weights(share, prepared.mask, loss), reduction)
    # Either side of the boundary is summed by itself, so that not the map but its sums are normalized.
    sums = voxel_sums(prepared, field=field, make_field=make)
    outside, inside, highest, deepest = (
        from_class(first, cast(Tensor, each)) for each in (sums.above, sums.below, sums.highest, sums.deepest)
    )
    if best is not None:
        inside = inside - best.flatten(2).sum(2)
    if normalize is not None:
        outside, inside = outside / highest, inside / deepest
    return reduce_weighted(outside + inside, from_class(first, sums.voxels), share, reduction)


def _map_of(
    truth: Tensor, like: Tensor, *, first: int, spacing: Spacing | None, boundary: Boundary, clip: float | None
) -> Tensor:
    """Return the map of all classes, of the shape and dtype of `like`, 0 for those before `first`."""
    inside = regions(truth, like.shape[1])
    if first:
        inside[:, :first] = False
    return signed_distances_of(inside, spacing=spacing, boundary=boundary, clip=clip).to(like.dtype)


def check_distance_map(distance_map: Tensor, prepared: Prepared) -> Tensor:
    """Return a given map, checked against the logits, in their dtype and without a gradient."""
    if distance_map.shape != prepared.logits.shape or not distance_map.is_floating_point():
        raise ValueError(
            f"expected `distance_map` to be floating and of the shape of `input`, {tuple(prepared.logits.shape)}, "
            f"got shape {tuple(distance_map.shape)}, {distance_map.dtype}"
        )
    return distance_map.detach().to(prepared.logits)


BoundaryLoss = as_module("BoundaryLoss", boundary_loss)
