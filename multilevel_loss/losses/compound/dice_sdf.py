"""Dice and regression of the signed distance map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor

from multilevel_loss._checks import Mode, Spacing, check_number
from multilevel_loss._module import as_module
from multilevel_loss._reduce import full_precision
from multilevel_loss._targets import prepare
from multilevel_loss.distance.maps import Boundary
from multilevel_loss.losses._scheduled import given
from multilevel_loss.losses.boundary.sdf_regression import Penalty, sdf_regression_loss
from multilevel_loss.losses.region.dice import dice_loss


@full_precision
def dice_sdf_loss(
    input: Tensor,
    target: Tensor,
    *,
    sdf_input: Tensor | None = None,
    mode: Mode | None = None,
    include_background: bool = True,
    region: Callable[..., Tensor] = dice_loss,
    penalty: Penalty = "l1",
    sdf_weight: float = 10.0,
    steepness: float = 1500.0,
    distance_map: Tensor | None = None,
    spacing: Spacing | None = None,
    boundary: Boundary = "inner",
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
) -> Tensor:
    r"""Dice and regression of the signed distance map.

    .. math:: \text{Dice}(p, v) + \lambda \, \text{SDF}(\hat y, -\Phi)

    A network with two heads gives the logits of p and the field ŷ = tanh(sdf_input). One with a single head regresses
    ŷ = tanh(input), and p is the activation of k·ŷ, a steep step where ŷ crosses 0.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype; without `sdf_input` the raw field, positive
            inside.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        sdf_input: raw field of the second head (B, C, *spatial), positive inside.
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out.
        region: the loss of p, a function or module of this library.
        penalty: that of :func:`~multilevel_loss.functional.sdf_regression_loss`.
        sdf_weight: λ, at least 0.
        steepness: k, greater than 0, of a network with a single head.
        distance_map: precomputed map (B, C, *spatial), negative inside, scaled to [−1, 1]; computed when None.
        spacing: mm, in the axis order of the tensor (D, H, W): a number, one a spatial axis, or (B, number of axes);
            None measures in voxels.
        boundary: where the map is 0; see :func:`multilevel_loss.signed_distance_map`.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class in both terms, background included.

    Returns:
        A float32 (float64 for float64 input) scalar, at least 0.

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits. With a single head Dice has a gradient only where
        ŷ is within a few times 1/k of 0. A class that is absent or fills the image counts in Dice alone. A NaN gives
        a NaN loss unless it is masked.

    Example:
        >>> import torch
        >>> target = torch.tensor([[0, 0, 1, 1, 1, 0]])
        >>> field = torch.tensor([[[-9.0, -0.5, 0.1, 9.0, 0.1, -0.5]]])
        >>> round(dice_sdf_loss(field, target).item(), 2)
        0.46

    Source:
        Table 1 of Liu et al., after Ma, He and Yang (IEEE TMI 2021). With `penalty="l1+product"` the single-headed
        form is that of Xue et al., Shape-aware organ segmentation by predicting signed distance maps (AAAI 2020),
        whose λ and k are the defaults.
    """
    check_number("sdf_weight", sdf_weight, minimum=0)
    check_number("steepness", steepness, above=0)
    prepared = field = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    if sdf_input is None:
        prepared = field.with_logits("input", steepness * field.logits.tanh())
    else:
        field = prepared.with_logits("sdf_input", sdf_input)
    common = given(class_mask=class_mask, weight=weight) | {"include_background": include_background}
    regression = sdf_regression_loss(
        cast(Tensor, field),
        target,
        penalty=penalty,
        distance_map=distance_map,
        spacing=spacing,
        boundary=boundary,
        **common,
    )
    return region(prepared, target, **common) + sdf_weight * regression


DiceSDFLoss = as_module("DiceSDFLoss", dice_sdf_loss)
