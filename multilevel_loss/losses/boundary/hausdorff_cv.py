"""Hausdorff loss by convolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multilevel_loss._checks import Mode, Reduction, check_number
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, reduce, voxel_weights
from multilevel_loss._targets import prepare


@full_precision
def hausdorff_cv_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    alpha: float = 2.0,
    radii: Sequence[float] = (3, 6, 9, 12, 15, 18),
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Hausdorff loss by convolution: errors weighed by the largest balls around them that miss a boundary.

    .. math::

        \frac{1}{|\Omega|} \sum_r r^\alpha \sum (p - v)^2 \bigl[
            v \, (f(\bar p_r) + f(v_r)) + p \, (f(p_r) + f(\bar v_r)) \bigr],
        \quad x_r = B_r * x, \quad \bar x_r = 1 - x_r, \quad f(x) = \max(2x - 1, 0)

    with B_r the mean over the part of the ball of radius r around a voxel that lies in the image and counts. For
    binary p and v, a term is 1 where the ball lies on one side of a boundary and 0 where it lies half on either.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out.
        alpha: α, at least 0; the larger it is, the more the largest errors count.
        radii: r, each at least 1 voxel.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class, background included; relative, since the mean divides by its sum.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar, at least 0; (B, C', *spatial) for "none".

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits. The convolutions run in the frequency domain, at a cost
        that does not depend on the radius; of the three Hausdorff losses this one takes the most memory. A NaN logit
        gives a NaN loss unless it is masked.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 32, 32, dtype=torch.long)
        >>> far, near = torch.full((2, 1, 1, 32, 32), -9.0)
        >>> far[..., 8:12, 8:12] = near[..., 14:16, :8] = 9.0  # 16 false voxels each, in a blob and in a thin strip
        >>> bool(hausdorff_cv_loss(far, target, radii=[1]) > hausdorff_cv_loss(near, target, radii=[1]))
        True

    Source:
        Karimi and Salcudean, Reducing the Hausdorff distance in medical image segmentation with convolutional
        neural networks (IEEE TMI 2020), who give no code: the slope of f, and leaving what lies beyond the image
        out of the ball, are our reading.
    """
    check_number("alpha", alpha, minimum=0)
    for radius in radii:
        check_number("radii", radius, minimum=1)
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = prepared.first_class(include_background)
    p, v = prepared.probability()[:, first:], prepared.target[:, first:]
    grid = p.shape[2:]
    axes = tuple(range(2, p.ndim))
    padded = [side + int(max(radii, default=0)) for side in grid]  # so that a ball does not wrap around
    counts = p.new_ones(1, 1, *grid) if prepared.mask is None else prepared.mask.to(p.dtype)
    spectra = [torch.fft.rfftn(x, s=padded, dim=axes) for x in (p, v, counts)]
    affinity = torch.zeros_like(p)
    for radius in radii:
        ball = _ball_spectrum(radius, padded, p)
        sum_p, sum_v, size = (_crop(torch.fft.irfftn(x * ball, s=padded, dim=axes), grid) for x in spectra)
        size = size.clamp_min(1)
        # 2x − 1, positive where most of the ball is inside.
        inside_p, inside_v = 2 * sum_p / size - 1, 2 * sum_v / size - 1
        missed, false = inside_v.relu() + (-inside_p).relu(), inside_p.relu() + (-inside_v).relu()
        affinity = affinity + radius**alpha * (v * missed + p * false)
    loss = (p - v).square() * affinity
    share = voxel_weights(class_weights(weight, class_mask, prepared.logits, first), prepared.mask, loss)
    return reduce(loss, share, reduction)


def _ball_spectrum(radius: float, grid: Sequence[int], like: Tensor) -> Tensor:
    """Return the real spectrum of the ball around voxel 0 of a periodic grid; a ball is even, so it has no other."""
    squares = like.new_zeros(())
    for side in grid:
        offset = torch.arange(side, dtype=like.dtype, device=like.device)
        squares = squares.unsqueeze(-1) + torch.minimum(offset, side - offset).square()
    spectrum: Tensor = torch.fft.rfftn((squares <= radius**2).to(like.dtype))
    return spectrum.real


def _crop(x: Tensor, grid: Sequence[int]) -> Tensor:
    for axis, side in enumerate(grid, 2):
        x = x.narrow(axis, 0, side)
    return x


HausdorffCVLoss = as_module("HausdorffCVLoss", hausdorff_cv_loss)
