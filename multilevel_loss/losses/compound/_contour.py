"""What energies of contours are made of: length, and misfit of a region to its mean."""

from __future__ import annotations

import torch
from torch import Tensor

from multilevel_loss._checks import Mode, Spacing, check_input, check_spacing
from multilevel_loss._targets import Prepared, masked, prepare


def prepare_unlabelled(
    input: Tensor, target: Tensor | None, *, mode: Mode | None, ignore_index: int | None, mask: Tensor | None
) -> Prepared:
    """Prepare a prediction that is compared with an image, and with no target."""
    if target is None and not isinstance(input, Prepared):
        check_input(input)
        target = torch.zeros_like(input)
    return prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)


def check_image(image: Tensor, prepared: Prepared) -> Tensor:
    """Return the image (B, K, *spatial) in the dtype of the logits, 0 where masked."""
    batch, _, *grid = prepared.logits.shape
    if image.ndim != len(grid) + 2 or (image.shape[0], *image.shape[2:]) != (batch, *grid):
        raise ValueError(
            f"expected `image` to have shape (B, K, *spatial) with B = {batch} and spatial = {tuple(grid)}, "
            f"got shape {tuple(image.shape)}"
        )
    image = image.detach().to(prepared.logits.dtype)
    return image if prepared.mask is None else masked(image, prepared.mask)


def complement(region: Tensor, mask: Tensor | None) -> Tensor:
    """Return what of the counted voxels does not belong to a region (B, C, *spatial)."""
    return 1 - region if mask is None else masked(1 - region, mask)


def region_misfit(image: Tensor, region: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean over the voxels of y·|x − c|², c = Σ y·x / Σ y being the mean of the image in the region.

    Args:
        image: x (B, 1, K, *spatial), or (B, C, K, *spatial) for one image a region.
        region: y (B, C, *spatial), from 0 to 1, 0 where masked.
        mask: (B, 1, *spatial) bool, True where a voxel counts; None when all do.

    Returns:
        (B, C).
    """
    x, y = image.flatten(3), region.flatten(2).unsqueeze(2)
    mean = (x * y).sum(-1, keepdim=True) / y.sum(-1, keepdim=True).clamp_min(1e-6)
    return voxel_mean(((x - mean).square() * y).sum(2), mask)


def voxel_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean (B, C) of x (B, C, *spatial), 0 where masked, over the voxels that count."""
    if mask is None:
        return x.flatten(2).mean(-1)
    return x.flatten(2).sum(-1) / mask.flatten(2).sum(-1).clamp_min(1)


def contour_length(
    x: Tensor, mask: Tensor | None, spacing: Spacing | None, epsilon: float, density: Tensor | float = 1.0
) -> Tensor:
    """Return the mean (B, C) of density·√(|∇x|² + ε) over the cells whose voxels all count; see :func:`slope`."""
    length = density * slope(x, spacing, epsilon)
    if mask is None:
        return length.flatten(2).mean(-1)
    counts = mask.to(x.dtype)
    for axis in range(2, x.ndim):
        counts = _average(counts, axis)
    counts = counts.eq(1).to(x.dtype)
    return (counts * length).flatten(2).sum(-1) / counts.flatten(2).sum(-1).clamp_min(1)


def slope(x: Tensor, spacing: Spacing | None, epsilon: float) -> Tensor:
    """Return √(|∇x|² + ε) in the cells between the voxels of x (B, C, *spatial).

    Taken between voxels, the slope does not depend on the direction in which the axes run, and sums to the true length
    of straight and of diagonal contours.
    """
    steps = check_spacing(spacing, x.shape[0], x.ndim - 2, x.device)
    squares: Tensor | float = epsilon
    for axis in range(2, x.ndim):
        change = x.diff(dim=axis) if x.shape[axis] > 1 else torch.zeros_like(x)
        for other in range(2, x.ndim):
            if other != axis:
                change = _average(change, other)
        if steps is not None:
            change = change / steps[:, axis - 2].to(x.dtype).view(-1, *[1] * (x.ndim - 1))
        squares = squares + change.square()
    return torch.as_tensor(squares).sqrt()


def _average(x: Tensor, axis: int) -> Tensor:
    """Return the means of neighbours along an axis; x itself where it is one voxel thin."""
    last = x.shape[axis] - 1
    return x if last < 1 else (x.narrow(axis, 0, last) + x.narrow(axis, 1, last)) / 2
