"""The multi-level structural loss: region, boundary and uncertain points together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor

from multilevel_loss._checks import Mode, Spacing
from multilevel_loss._module import Loss
from multilevel_loss._reduce import full_precision
from multilevel_loss._targets import prepare
from multilevel_loss.losses._scheduled import OMEGA, ScheduledLoss, check_term, check_weight, given, weighted_sum
from multilevel_loss.losses.boundary.boundary import BoundaryLoss, boundary_loss
from multilevel_loss.losses.pixel.uncertain_point import UncertainPointLoss, uncertain_point_loss
from multilevel_loss.losses.region.dice import DiceLoss, dice_loss
from multilevel_loss.schedules import Schedule

# Distances in voxels are 10 and more where Dice is 1: they leave nothing of a small organ.
_default_boundary = partial(boundary_loss, normalize="max")

_SHARED = {"mode", "include_background", "ignore_index", "mask", "class_mask", "weight", "reduction"}


@full_precision
def multilevel_loss(
    input: Tensor,
    target: Tensor,
    *,
    region: Callable[..., Tensor] = dice_loss,
    boundary: Callable[..., Tensor] | None = None,
    pixel: Callable[..., Tensor] = uncertain_point_loss,
    alpha: float = 1.0,
    beta: float = 1.0,
    mode: Mode | None = None,
    include_background: bool = True,
    spacing: Spacing | None = None,
    distance_map: Tensor | None = None,
    point_input: Tensor | None = None,
    point_coords: Tensor | None = None,
    generator: torch.Generator | None = None,
    coarse_input: Tensor | None = None,
    omega: tuple[float, float] = OMEGA,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    return_components: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Multi-level structural loss: region, boundary and uncertain points.

    .. math:: E_R + \alpha E_B + \beta E_P

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        region: E_R, a loss of this library, function or module.
        boundary: E_B, likewise; one that takes `spacing` and `distance_map` where these are given;
            ``BoundaryLoss(normalize="max")`` when None.
        pixel: E_P, likewise; one that takes `point_coords` and `generator` where these are given.
        alpha: α. A term of weight 0 is not computed.
        beta: β, likewise.
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out of every term.
        spacing: mm, in the axis order of the tensor (D, H, W): a number, one a spatial axis, or (B, number of axes);
            None measures in voxels.
        distance_map: precomputed signed distance map (B, C, *spatial), negative inside, in any unit as long as
            `boundary` normalizes it; computed when None.
        point_input: logits (B, C, *spatial') for the pixel term, coarser or finer than `input`, which is taken when
            None; the target is sampled at the same places of the image.
        point_coords: (B, P, D) in [0, 1], x first, replays these points instead of drawing any.
        generator: the source of randomness for the points; torch's default one when None.
        coarse_input: logits (B, C, *spatial) of a coarse model, which joins with its region loss; the sum is then
            ω₁ E_R(coarse) + ω₂ times the above.
        omega: ω₁ and ω₂.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class in every term, background included.
        return_components: return also the terms by name, before they are weighted.

    Returns:
        A float32 (float64 for float64 input) scalar; with `return_components` a pair of it and a dictionary of
        those of "region", "boundary", "pixel" and "coarse" that were computed.

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits, whichever classes are absent. The boundary term is
        negative for a good prediction unless it is ``BoundaryLoss(offset="optimal")``.

    Example:
        >>> import torch
        >>> logits = torch.randn(2, 1, 32, 32, requires_grad=True)
        >>> target = torch.zeros(2, 32, 32, dtype=torch.long)
        >>> target[:, 8:12, 8:24] = 1
        >>> loss, terms = multilevel_loss(logits, target, return_components=True)
        >>> loss.backward()
        >>> sorted(terms)
        ['boundary', 'pixel', 'region']

    Source:
        Eqs. 3 and 11 of Liu et al., which print ω₁ = 0.3; ⅓, beside ω₂ = ⅔, is their predecessor's (RSTN). Their
        distances are in voxels, ``boundary=BoundaryLoss()``; that drives small organs to nothing where α does not
        begin at 0, and often where it does.
    """
    boundary = _default_boundary if boundary is None else boundary
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    # A prepared prediction stands in for the two tensors it was made from, so that the terms share its activation.
    shared = cast(Tensor, prepared)
    common = given(class_mask=class_mask, weight=weight) | {"include_background": include_background}
    components: dict[str, Tensor] = {}
    # The pixel term goes first: its gradient, as large as the logits, is then made last, when the activation is gone.
    if beta != 0:
        points = given(point_coords=point_coords, generator=generator)
        at_points = (
            shared
            if point_input is None
            else cast(Tensor, prepared.with_logits("point_input", point_input, same_grid=False))
        )
        components["pixel"] = pixel(at_points, target, **common, **points)
    if alpha != 0:  # before the region term, whose sums are a part of its own
        components["boundary"] = boundary(shared, target, **common, **given(spacing=spacing, distance_map=distance_map))
    components["region"] = region(shared, target, **common)
    if coarse_input is not None:
        components["coarse"] = region(prepared.with_logits("coarse_input", coarse_input), target, **common)
    return weighted_sum(components, {"region": 1.0, "boundary": alpha, "pixel": beta}, return_components, omega)


class MLLoss(ScheduledLoss):
    r"""Multi-level structural loss: region, boundary and uncertain points.

    .. math:: E_R + \alpha E_B + \beta E_P

    Args:
        region: E_R, :class:`DiceLoss` when None; any loss module of this library may take its place.
        boundary: E_B, :class:`BoundaryLoss` with ``normalize="max"`` when None.
        pixel: E_P, :class:`UncertainPointLoss` when None.
        alpha: α, a number or a schedule, a function of the epoch.
        beta: β, likewise.
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out of every term.
        ignore_index: label of voxels that do not count.
        weight: (C,) weight of each class in every term, background included.
        omega: ω₁ and ω₂, the weights of a coarse and a fine model, where the call is given `coarse_input`.
        return_components: return also the terms by name, before they are weighted.

    Raises:
        TypeError: a term is not a loss module of this library.
        ValueError: a term was given an option that all terms share; give it here.

    Note:
        With a schedule, call :meth:`set_epoch` at the start of each epoch; the epoch is part of ``state_dict()``.
        A schedule that is used without ever having been told the epoch warns, once.

    Example:
        >>> import torch
        >>> from multilevel_loss import LinearRamp, StepAt
        >>> loss = MLLoss(alpha=LinearRamp(0, 1, step=0.2), beta=StepAt(12))
        >>> loss.set_epoch(3)
        >>> loss.weights
        {'region': 1.0, 'boundary': 0.6000000000000001, 'pixel': 0.0}
        >>> logits, target = torch.randn(1, 3, 8, 8, 8), torch.randint(3, (1, 8, 8, 8))
        >>> loss(logits, target).shape
        torch.Size([])

    Source:
        Eqs. 3 and 11 of Liu et al., whose distances are in voxels: ``boundary=BoundaryLoss()``. The schedules of the
        example are those of its §4.1.1.
    """

    def __init__(
        self,
        *,
        region: Loss[...] | None = None,
        boundary: Loss[...] | None = None,
        pixel: Loss[...] | None = None,
        alpha: float | Schedule = 1.0,
        beta: float | Schedule = 1.0,
        mode: Mode | None = None,
        include_background: bool = True,
        ignore_index: int | None = None,
        weight: Tensor | Sequence[float] | None = None,
        omega: tuple[float, float] = OMEGA,
        return_components: bool = False,
    ) -> None:
        super().__init__({"region": 1.0, "boundary": check_weight("alpha", alpha), "pixel": check_weight("beta", beta)})
        self.region = check_term("region", DiceLoss() if region is None else region, "MLLoss", _SHARED)
        boundary = BoundaryLoss(**_default_boundary.keywords) if boundary is None else boundary
        self.boundary = check_term("boundary", boundary, "MLLoss", _SHARED)
        self.pixel = check_term("pixel", UncertainPointLoss() if pixel is None else pixel, "MLLoss", _SHARED)
        self.mode = mode
        self.include_background = include_background
        self.ignore_index = ignore_index
        self.weight: Tensor | None
        self.register_buffer("weight", None if weight is None else torch.as_tensor(weight), persistent=False)
        self.omega = omega
        self.return_components = return_components

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        spacing: Spacing | None = None,
        distance_map: Tensor | None = None,
        point_input: Tensor | None = None,
        point_coords: Tensor | None = None,
        generator: torch.Generator | None = None,
        coarse_input: Tensor | None = None,
        mask: Tensor | None = None,
        class_mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Return the loss; the arguments are those of :func:`multilevel_loss.functional.multilevel_loss`."""
        weights = self.weights_in_use()
        return multilevel_loss(
            input,
            target,
            region=self.region,
            boundary=self.boundary,
            pixel=self.pixel,
            alpha=weights["boundary"],
            beta=weights["pixel"],
            mode=self.mode,
            include_background=self.include_background,
            spacing=spacing,
            distance_map=distance_map,
            point_input=point_input,
            point_coords=point_coords,
            generator=generator,
            coarse_input=coarse_input,
            omega=self.omega,
            ignore_index=self.ignore_index,
            mask=mask,
            class_mask=class_mask,
            weight=self.weight,
            return_components=self.return_components,
        )
