"""Exact Euclidean distance maps of label maps and one-hot targets, batched, on any device."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from multilevel_loss._checks import Spacing, check_choice, check_labels, check_number, check_spacing
from multilevel_loss._targets import above, regions
from multilevel_loss.distance._op import signed_distances

Boundary = Literal["inner", "midpoint", "kervadec"]
Side = Literal["both", "inside", "outside"]


def signed_distance_map(
    target: Tensor,
    *,
    num_classes: int | None = None,
    spacing: Spacing | None = None,
    boundary: Boundary = "inner",
    normalize: Literal["max"] | None = None,
    clip: float | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    r"""Exact signed Euclidean distance map of every class: negative inside, positive outside.

    Φ(x) = −min_{y ∈ ∂D} ‖x − y‖ for x ∈ D, +min_{y ∈ ∂D} ‖x − y‖ otherwise

    Args:
        target: label map (B, *spatial), any integer or bool dtype, or one-hot or soft classes (B, C, *spatial),
            floating, of which a voxel belongs to those above 0.5; 1 to 3 spatial dimensions.
        num_classes: C ≥ 2 gives one map for each label 0 … C − 1; None takes a label map as binary (labels 0 and 1).
        spacing: voxel size in mm, in the tensor's axis order (D, H, W): one value, one for each axis, or one row
            for each sample (B, D); the map is then in mm. None measures in voxels, with exact integer squares.
        boundary: where the map is 0. "inner": on ∂D, the voxels of D with a face neighbour outside D. "midpoint":
            half of the smallest spacing beyond the last voxel of either side, so the map has no jump and no zeros.
            "kervadec": as published with the boundary loss of Kervadec et al., distance to D outside and
            −(distance to the complement − 1) inside, where the 1 is one voxel even in mm.
        normalize: "max" divides each side of each map by its own maximum, so that it lies in [−1, 1].
        clip: largest absolute distance kept, in the unit of the map, > 0; applied before `normalize`.
        ignore_index: label whose voxels belong to no class.

    Returns:
        float32 (B, C, *spatial), C = 1 for a binary label map; voxels, mm with `spacing`, no unit with `normalize`.

    Raises:
        TypeError: `target` is not a tensor of integers, bools or floats.
        ValueError: an argument breaks the rule above, or a label map on the CPU holds a label that is neither a
            class nor `ignore_index`; elsewhere that is an assertion on the device.

    Note:
        The map of an absent class, and of one that fills the image, is 0 everywhere. The image edge is no boundary.
        Maps are constants: no gradient flows to `target`. Flips, permutations of axes and rotations by 90° of a map
        are the map of the so transformed target; after any other augmentation compute the map anew. Compute a map on
        the whole image, then crop it: the map of a crop does not know the boundary beyond its edge.

    Example:
        >>> target = torch.tensor([[0, 0, 1, 1, 1, 0]])
        >>> signed_distance_map(target)
        tensor([[[ 2.,  1.,  0., -1.,  0.,  1.]]])
        >>> signed_distance_map(target, spacing=0.5, boundary="midpoint")
        tensor([[[ 0.7500,  0.2500, -0.2500, -0.7500, -0.2500,  0.2500]]])

    Source:
        Eq. 7 of the multi-level loss. "kervadec": Kervadec et al., Boundary loss for highly unbalanced segmentation,
        2019. "max": Xue et al., Shape-aware organ segmentation by predicting signed distance maps, 2020.
    """
    inside = _membership(target, num_classes, ignore_index)
    return signed_distances_of(inside, spacing=spacing, boundary=boundary, normalize=normalize, clip=clip)


def signed_distances_of(
    inside: Tensor,
    *,
    spacing: Spacing | None = None,
    boundary: Boundary = "inner",
    normalize: Literal["max"] | None = None,
    clip: float | None = None,
) -> Tensor:
    """Return the map of :func:`signed_distance_map` of regions, contiguous bool (B, C, *spatial)."""
    check_choice("boundary", boundary, get_args(Boundary))
    distance, step = distances_across(inside, spacing, inner=boundary == "inner")
    if boundary == "midpoint":
        half = 0.5 if step is None else 0.5 * step
        distance = distance - half * distance.sign()
    elif boundary == "kervadec":
        distance += distance < 0  # a map of our own
    return bounded(distance, normalize=normalize, clip=clip)


def bounded(distance: Tensor, *, normalize: Literal["max"] | None, clip: float | None) -> Tensor:
    """Return a map (B, C, *spatial) with the bounds of :func:`signed_distance_map`."""
    check_choice("normalize", normalize, (None, "max"))
    if clip is not None:
        check_number("clip", clip, above=0)
        distance = distance.clamp(-clip, clip)
    if normalize is None or distance.numel() == 0:
        return distance
    spatial = tuple(range(2, distance.ndim))
    outside, inside = distance.amax(spatial, keepdim=True), -distance.amin(spatial, keepdim=True)
    # The farthest of a side that has no voxel divides none.
    outside, inside = (torch.where(farthest > 0, farthest, 1) for farthest in (outside, inside))
    return distance / torch.where(distance > 0, outside, inside)


def distance_map(
    target: Tensor,
    *,
    num_classes: int | None = None,
    spacing: Spacing | None = None,
    side: Side = "both",
    ignore_index: int | None = None,
) -> Tensor:
    r"""Exact Euclidean distance of every voxel to the nearest voxel on the other side of its class's border.

    d(x) = min_{y ∉ D} ‖x − y‖ for x ∈ D, min_{y ∈ D} ‖x − y‖ otherwise

    Args:
        target: as in `signed_distance_map`.
        num_classes: as in `signed_distance_map`.
        spacing: as in `signed_distance_map`.
        side: "both", or the one side of the border that keeps its distances while the other gets 0.
        ignore_index: as in `signed_distance_map`.

    Returns:
        float32 (B, C, *spatial), ≥ 0; voxels, or mm with `spacing`.

    Raises:
        TypeError: as in `signed_distance_map`.
        ValueError: as in `signed_distance_map`.

    Note:
        The map of an absent class, and of one that fills the image, is 0 everywhere. No gradient flows to `target`.

    Example:
        >>> distance_map(torch.tensor([[0, 0, 1, 1, 1, 0]]))
        tensor([[[2., 1., 1., 2., 1., 1.]]])
    """
    inside = _membership(target, num_classes, ignore_index)
    check_choice("side", side, get_args(Side))
    distance, _ = distances_across(inside, spacing, inner=False)
    if side == "both":
        return distance.abs_()  # a map of our own
    return (distance if side == "outside" else -distance).clamp(min=0)


def distances_across(inside: Tensor, spacing: Spacing | None, inner: bool) -> tuple[Tensor, Tensor | None]:
    """Return new signed distances (B, C, *spatial) and the least spacing of each sample, (B, 1, ...)."""
    batch, channels, *spatial = inside.shape
    # MPS has no float64, so there the spacing stays on the CPU.
    device = "cpu" if inside.device.type == "mps" else inside.device
    steps = check_spacing(spacing, batch, len(spatial), device)
    if steps is None:
        return signed_distances(inside.flatten(0, 1), None, inner).view(inside.shape), None
    steps = steps.detach()
    distance = signed_distances(inside.flatten(0, 1), steps.repeat_interleave(channels, 0), inner).view(inside.shape)
    return distance, steps.amin(1).to(distance).view(-1, *[1] * (inside.ndim - 1))


def _membership(target: Tensor, num_classes: int | None, ignore_index: int | None) -> Tensor:
    """Return which voxels belong to which class: contiguous bool (B, C, *spatial)."""
    if not isinstance(target, Tensor) or target.is_complex():
        came = target.dtype if isinstance(target, Tensor) else type(target).__name__
        raise TypeError(f"expected `target` to be an integer, bool or floating tensor, got {came}")
    shape = tuple(target.shape)
    if target.is_floating_point():
        if not 3 <= target.ndim <= 5:
            raise ValueError(
                "expected floating `target` to have shape (B, C, *spatial) with 1 to 3 spatial dimensions, "
                f"got shape {shape}"
            )
        if num_classes not in (None, shape[1]):
            raise ValueError(f"expected `num_classes` to be C of `target` (B, C, *spatial), {shape}, got {num_classes}")
        if ignore_index is not None:
            raise ValueError(f"expected `ignore_index` to be None when `target` is floating, got {ignore_index}")
        return above(0.5, target)
    if not 2 <= target.ndim <= 4:
        raise ValueError(
            "expected label map `target` to have shape (B, *spatial) with 1 to 3 spatial dimensions, "
            f"got shape {shape}; a one-hot target has a floating dtype"
        )
    if num_classes is not None and num_classes < 2:
        raise ValueError(f"expected `num_classes` to be at least 2, or None for labels 0 and 1, got {num_classes}")
    if target.dtype == torch.bool and num_classes is None and ignore_index is None:
        return target.unsqueeze(1).contiguous()
    if target.dtype in (torch.uint16, torch.uint32, torch.uint64):  # few operations take these
        target = target.long()
    known = None if ignore_index is None else target != ignore_index
    labels = target if known is None else target.masked_fill(~known, 0)
    check_labels("target", labels, 2 if num_classes is None else num_classes)
    if known is not None:
        labels = labels.long().masked_fill(~known, 2 if num_classes is None else num_classes)
    return regions(labels.unsqueeze(1), num_classes or 1)
