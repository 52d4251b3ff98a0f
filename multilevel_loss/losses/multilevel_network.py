"""The loss of the multi-level structural network: one term a branch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from multilevel_loss._checks import Mode
from multilevel_loss._reduce import full_precision
from multilevel_loss._targets import Prepared, prepare
from multilevel_loss.losses._scheduled import OMEGA, ScheduledLoss, check_weight, given, weighted_sum
from multilevel_loss.losses.boundary.boundary_regression import boundary_regression_loss
from multilevel_loss.losses.pixel.uncertain_point import point_cross_entropy
from multilevel_loss.losses.region.dice import dice_loss
from multilevel_loss.schedules import Schedule


@full_precision
def multilevel_network_loss(
    region: Tensor,
    boundary: Tensor,
    pixel: Tensor,
    fusion: Tensor,
    target: Tensor,
    *,
    point_coords: Tensor,
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
    mode: Mode | None = None,
    include_background: bool = True,
    distance_map: Tensor | None = None,
    coarse_input: Tensor | None = None,
    omega: tuple[float, float] = OMEGA,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    return_components: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Loss of a network with region, boundary, pixel and fusion branches.

    .. math:: E_R(P^{region}) + \alpha E_B^S(P^{boundary}) + \beta E_P(L^{pixel}) + \gamma E_R(P^{fusion})

    Args:
        region: logits (B, C, *spatial) of the region branch, 1-D to 3-D, any floating dtype; Dice loss.
        boundary: (B, C, *spatial), the negative of a signed distance map in voxels; boundary regression loss.
        pixel: logits (B, C, P) at `point_coords`; cross entropy.
        fusion: logits (B, C, *spatial) of all branches together; Dice loss.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        point_coords: (B, P, D) in [0, 1], x first, where the pixel branch predicts; see
            :func:`multilevel_loss.uncertain_grid_points`.
        alpha: α. A term of weight 0 is not computed.
        beta: β, likewise.
        gamma: γ, likewise.
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out of every term.
        distance_map: precomputed signed distance map (B, C, *spatial) in voxels; computed when None.
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
        those of "region", "boundary", "pixel", "fusion" and "coarse" that were computed.

    Raises:
        TypeError: a prediction or `target` is not a tensor, or a prediction is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite predictions.

    Example:
        >>> import torch
        >>> from multilevel_loss import uncertain_grid_points
        >>> region, boundary, fusion = torch.randn(3, 2, 1, 16, 16)
        >>> points = uncertain_grid_points(region, 32)
        >>> target = torch.randint(2, (2, 16, 16))
        >>> multilevel_network_loss(region, boundary, torch.randn(2, 1, 32), fusion, target, point_coords=points).shape
        torch.Size([])

    Source:
        Eqs. 12 and 13 of Liu et al.
    """
    prepared = prepare(region, target, mode=mode, ignore_index=ignore_index, mask=mask)
    common = given(class_mask=class_mask, weight=weight) | {"include_background": include_background}

    def term(loss: Callable[..., Tensor], name: str, branch: Tensor, **options: Any) -> Tensor:
        return loss(cast(Tensor, prepared.with_logits(name, branch)), target, **common, **options)

    components = {"region": dice_loss(cast(Tensor, prepared), target, **common)}
    if alpha != 0:
        components["boundary"] = term(
            boundary_regression_loss, "boundary", boundary, **given(distance_map=distance_map)
        )
    if beta != 0:
        components["pixel"] = point_cross_entropy(
            _check_pixel(pixel, prepared, point_coords),
            prepared,
            point_coords,
            include_background=include_background,
            weight=weight,
            class_mask=class_mask,
            reduction="mean",
        )
    if gamma != 0:
        components["fusion"] = term(dice_loss, "fusion", fusion)
    if coarse_input is not None:
        components["coarse"] = term(dice_loss, "coarse_input", coarse_input)
    weights = {"region": 1.0, "boundary": alpha, "pixel": beta, "fusion": gamma}
    return weighted_sum(components, weights, return_components, omega)


class MLNLoss(ScheduledLoss):
    r"""Loss of the multi-level structural network: one term a branch.

    .. math:: E_R(P^{region}) + \alpha E_B^S(P^{boundary}) + \beta E_P(L^{pixel}) + \gamma E_R(P^{fusion})

    Args:
        alpha: α, a number or a schedule, a function of the epoch.
        beta: β, likewise.
        gamma: γ, likewise.
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out of every term.
        ignore_index: label of voxels that do not count.
        weight: (C,) weight of each class in every term, background included.
        omega: ω₁ and ω₂, the weights of a coarse and a fine model, where the call is given `coarse_input`.
        return_components: return also the terms by name, before they are weighted.

    Note:
        With a schedule, call :meth:`set_epoch` at the start of each epoch; the epoch is part of ``state_dict()``.
        A schedule that is used without ever having been told the epoch warns, once.

    Example:
        >>> from multilevel_loss.schedules import PAPER_MLN
        >>> loss = MLNLoss(**PAPER_MLN)
        >>> loss.set_epoch(12)
        >>> loss.weights
        {'region': 1.0, 'boundary': 1.0, 'pixel': 1.0, 'fusion': 1.0}

    Source:
        Eqs. 12 and 13 of Liu et al.
    """

    def __init__(
        self,
        *,
        alpha: float | Schedule = 1.0,
        beta: float | Schedule = 1.0,
        gamma: float | Schedule = 1.0,
        mode: Mode | None = None,
        include_background: bool = True,
        ignore_index: int | None = None,
        weight: Tensor | Sequence[float] | None = None,
        omega: tuple[float, float] = OMEGA,
        return_components: bool = False,
    ) -> None:
        super().__init__(
            {
                "region": 1.0,
                "boundary": check_weight("alpha", alpha),
                "pixel": check_weight("beta", beta),
                "fusion": check_weight("gamma", gamma),
            }
        )
        self.mode = mode
        self.include_background = include_background
        self.ignore_index = ignore_index
        self.weight: Tensor | None
        self.register_buffer("weight", None if weight is None else torch.as_tensor(weight), persistent=False)
        self.omega = omega
        self.return_components = return_components

    def forward(
        self,
        region: Tensor,
        boundary: Tensor,
        pixel: Tensor,
        fusion: Tensor,
        target: Tensor,
        *,
        point_coords: Tensor,
        distance_map: Tensor | None = None,
        coarse_input: Tensor | None = None,
        mask: Tensor | None = None,
        class_mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Return the loss; the arguments are those of :func:`multilevel_loss.functional.multilevel_network_loss`."""
        weights = self.weights_in_use()
        return multilevel_network_loss(
            region,
            boundary,
            pixel,
            fusion,
            target,
            point_coords=point_coords,
            alpha=weights["boundary"],
            beta=weights["pixel"],
            gamma=weights["fusion"],
            mode=self.mode,
            include_background=self.include_background,
            distance_map=distance_map,
            coarse_input=coarse_input,
            omega=self.omega,
            ignore_index=self.ignore_index,
            mask=mask,
            class_mask=class_mask,
            weight=self.weight,
            return_components=self.return_components,
        )


def _check_pixel(pixel: Tensor, prepared: Prepared, point_coords: Tensor) -> Tensor:
    expected = (*prepared.logits.shape[:2], point_coords.shape[1])
    if tuple(pixel.shape) != expected:
        raise ValueError(f"expected `pixel` to have shape (B, C, P) = {expected}, got {tuple(pixel.shape)}")
    return pixel.to(prepared.logits.dtype)
