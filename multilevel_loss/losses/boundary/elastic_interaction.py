"""Elastic interaction loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from multilevel_loss._checks import Mode, Reduction, Spacing, check_number, check_spacing
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, reduce
from multilevel_loss._targets import prepare


@full_precision
def elastic_interaction_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    alpha: float = 0.35,
    spacing: Spacing | None = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Elastic interaction loss: the boundaries attract each other over long distances, as dislocations do.

    .. math:: \frac{1}{|\Omega|} \sum_k |k| \; \bigl| \mathcal{F}[\alpha p - v](k) \bigr|^2

    with F the orthonormal Fourier transform over space and k the frequency.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out.
        alpha: α, greater than 0: how strongly the predicted boundary acts, compared with the true one.
        spacing: mm, in the axis order of the tensor (D, H, W): a number, one a spatial axis, or (B, number of axes);
            frequencies are cycles per mm, or cycles per voxel when None.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts; both fields are 0 elsewhere.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class, background included; relative, since the mean divides by its sum.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar, at least 0, in cycles per voxel or per mm; (B, C') for "none".

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits. With α < 1 a perfect prediction does not give 0: the
        energy of the truth's own boundary remains. The image is taken as periodic. A NaN logit gives a NaN loss
        unless it is masked.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 16, 16, dtype=torch.long)
        >>> target[:, 7] = 1  # a line
        >>> whole, broken = (40 * target.float() - 20).unsqueeze(1), (40 * target.float() - 20).unsqueeze(1)
        >>> broken[..., 7, 6:9] = -20.0
        >>> bool(elastic_interaction_loss(whole, target) < elastic_interaction_loss(broken, target))
        True

    Source:
        Lan, Xiang and Zhang, An elastic interaction-based loss function for medical image segmentation (MICCAI
        2020). Their sum is a mean here, and frequencies are cycles per length rather than per image, so that all
        directions weigh alike on grids that are not square; the ½ they subtract from p and v changes the
        frequency 0 alone, whose weight is 0.
    """
    check_number("alpha", alpha, above=0)
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = prepared.first_class(include_background)
    field = (alpha * prepared.probability() - prepared.target)[:, first:]
    batch, _, *grid = field.shape
    axes = tuple(range(2, field.ndim))
    frequency = _frequencies(grid, check_spacing(spacing, batch, len(grid), prepared.device), field)
    spectrum = torch.view_as_real(torch.fft.rfftn(field, dim=axes, norm="ortho"))
    loss = (frequency * spectrum.square().sum(-1)).sum(axes) / math.prod(grid)
    return reduce(loss, class_weights(weight, class_mask, prepared.logits, first), reduction)


def _frequencies(grid: Sequence[int], spacing: Tensor | None, like: Tensor) -> Tensor:
    """Return |k| over the half spectrum of a real field, (B or 1, 1, *grid), twice where the other half mirrors it."""
    options: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
    steps = torch.ones(1, len(grid), **options) if spacing is None else spacing.to(like)
    squares = torch.zeros(len(steps), 1, **options)
    for axis, side in enumerate(grid):
        half = axis == len(grid) - 1
        cycles = torch.fft.rfftfreq(side, **options) if half else torch.fft.fftfreq(side, **options)
        squares = (
            squares.unsqueeze(-1)
            + (cycles / steps[:, axis : axis + 1]).view(len(steps), *[1] * (axis + 1), -1).square()
        )
    mirrored = 2 * torch.arange(grid[-1] // 2 + 1, device=like.device) % grid[-1] != 0
    return squares.sqrt() * (1 + mirrored.to(like.dtype))


ElasticInteractionLoss = as_module("ElasticInteractionLoss", elastic_interaction_loss)
