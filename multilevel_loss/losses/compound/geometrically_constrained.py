"""Geometrically constrained loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multilevel_loss._checks import Mode, Spacing, check_number, check_spacing
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, reduce
from multilevel_loss._targets import prepare
from multilevel_loss.losses.region.dice import dice_loss


@full_precision
def geometrically_constrained_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    geometry_weight: float = 1.0,
    spacing: Spacing | None = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
) -> Tensor:
    r"""Geometrically constrained loss: Dice, and the size, place and shape of the region. Our interpretation.

    .. math:: \text{Dice} + \frac{\lambda}{3} \left( \frac{(A_p - A_v)^2}{(A_p + A_v)^2}
        + \frac{|\mu_p - \mu_v|^2}{|\mu_p - \mu_v|^2 + \operatorname{tr} \Sigma_p + \operatorname{tr} \Sigma_v}
        + \frac{|\Sigma_p - \Sigma_v|^2}{|\Sigma_p|^2 + |\Sigma_v|^2} \right)

    with A the sum, μ the centre and Σ the covariance of a region, a voxel's own 1/12 included: the ellipsoid of the
    region should be that of the truth. Each of the three terms lies in [0, 1].

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out.
        geometry_weight: λ, at least 0.
        spacing: mm, in the axis order of the tensor (D, H, W): a number, one a spatial axis, or (B, number of axes);
            None measures in voxels.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class, background included; relative, since the mean divides by its sum.

    Returns:
        A float32 (float64 for float64 input) scalar in [0, 1 + λ].

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits. A class that is absent from the truth has no geometry to
        keep: Dice alone counts. A structure of several parts is described as one. A NaN logit gives a NaN loss unless
        it is masked.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 16, 16, dtype=torch.long)
        >>> target[:, 4:8, 4:8] = 1
        >>> logits = 80.0 * target.unsqueeze(1) - 40.0
        >>> near, far = logits.roll(4, -1), logits.roll(8, -1)  # equal to Dice: neither overlaps
        >>> [round(geometrically_constrained_loss(shifted, target).item(), 2) for shifted in (near, far)]
        [1.25, 1.31]

    Source:
        Named by Table 1 of Liu et al. after Azzopardi et al., Bimodal automated carotid ultrasound segmentation using
        geometrically constrained deep neural networks (IEEE JBHI 2020), who tune their constraint to carotid arteries
        and publish no formula. This one is ours.
    """
    check_number("geometry_weight", geometry_weight, minimum=0)
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = prepared.first_class(include_background)
    p, v = prepared.probability()[:, first:], prepared.target[:, first:]
    batch, axes = p.shape[0], p.ndim - 2
    steps = check_spacing(spacing, batch, axes, p.device)
    steps = torch.ones(1, axes, dtype=p.dtype, device=p.device) if steps is None else steps.to(p.dtype)
    (size_p, place_p, spread_p), (size_v, place_v, spread_v) = (_moments(x, steps) for x in (p, v))
    distance = (place_p - place_v).square().sum(-1)
    terms = (
        (size_p - size_v).square() / (size_p + size_v).square().clamp_min(1e-6),
        distance / (distance + (_trace(spread_p) + _trace(spread_v))),
        _squares(spread_p - spread_v) / (_squares(spread_p) + _squares(spread_v)),
    )
    present = (size_v > 0).to(p.dtype)
    share = class_weights(weight, class_mask, prepared.logits, first)
    geometry = reduce(torch.stack(terms).mean(0), present if share is None else present * share, "mean")
    dice = dice_loss(
        prepared,  # type: ignore[arg-type]
        prepared.target,
        include_background=include_background,
        class_mask=class_mask,
        weight=weight,
    )
    return dice + geometry_weight * geometry


def _moments(region: Tensor, steps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sum (B, C), the centre (B, C, D) and the covariance (B, C, D, D) of a region (B, C, *spatial).

    They are taken from sums along all axes but two, so that no coordinate is multiplied with the whole region.
    """
    size = region.flatten(2).sum(-1)
    mass = size.clamp_min(1e-6)
    axes = range(region.ndim - 2)
    places, offsets = [], []
    for axis in axes:
        side = region.shape[axis + 2]
        position = torch.arange(side, dtype=region.dtype, device=region.device) - (side - 1) / 2
        position = (position * steps[:, axis : axis + 1]).unsqueeze(1)
        places.append((_project(region, axis) * position).sum(-1) / mass)
        offsets.append(position - places[axis].unsqueeze(-1))
    products = {}
    for a in axes:
        for b in axes[a:]:
            product = offsets[a].square() if a == b else offsets[a].unsqueeze(-1) * offsets[b].unsqueeze(-2)
            products[a, b] = products[b, a] = (_project(region, a, b) * product).flatten(2).sum(-1) / mass
        products[a, a] = products[a, a] + steps[:, a : a + 1].square() / 12
    spread = torch.stack([products[a, b] for a in axes for b in axes], -1)
    return size, torch.stack(places, -1), spread.view(*size.shape, len(axes), len(axes))


def _project(region: Tensor, *kept: int) -> Tensor:
    """Return the sum of a region (B, C, *spatial) along all axes but those kept."""
    summed = [axis + 2 for axis in range(region.ndim - 2) if axis not in kept]
    return region.sum(summed) if summed else region


def _trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)


def _squares(matrix: Tensor) -> Tensor:
    return matrix.square().sum((-2, -1))


GeometricallyConstrainedLoss = as_module("GeometricallyConstrainedLoss", geometrically_constrained_loss)
