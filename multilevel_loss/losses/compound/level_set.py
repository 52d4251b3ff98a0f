"""Level set loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor

from multilevel_loss._checks import Mode, check_number
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, reduce
from multilevel_loss._targets import masked, prepare
from multilevel_loss.losses.compound._contour import complement, region_misfit
from multilevel_loss.losses.region.cross_entropy import cross_entropy_loss


@full_precision
def level_set_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    level_set_weight: float = 1.0,
    epsilon: float = 1 / 32,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
) -> Tensor:
    r"""Level set loss: cross entropy, and how far the truth is from constant on either side of the predicted contour.

    .. math:: \text{CE}(p, v) + \frac{\lambda}{|\Omega|} \sum H \, (v - c_1)^2 + (1 - H) (v - c_2)^2,
        \quad H = \frac{1}{2} \Bigl(1 + \tanh \frac{p - 1/2}{\varepsilon}\Bigr)

    with c₁ = Σ vH / Σ H and c₂ = Σ v(1 − H) / Σ (1 − H), the means of the truth inside and outside.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out of the level set term, and for multilabel of both; the
            softmax of the other needs all of its classes.
        level_set_weight: λ, at least 0.
        epsilon: ε, greater than 0: the smaller it is, the steeper is the step H at p = ½.
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
        Finite, with finite gradients, for any finite logits. The level set term alone does not tell inside from
        outside, and has hardly a gradient where p is more than a few ε from ½. A NaN logit gives a NaN loss unless it
        is masked.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[20.0, 20.0, 20.0, -20.0]]])
        >>> target = torch.tensor([[1, 1, 0, 0]])  # inside the mean is ⅔: (⅓² + ⅓² + ⅔²) / 4
        >>> terms = [level_set_loss(logits, target, level_set_weight=w).item() for w in (0.0, 1.0)]
        >>> round(terms[1] - terms[0], 3)
        0.167

    Source:
        Kim et al., CNN-based semantic segmentation using level set loss (WACV 2019). Table 1 of Liu et al. means
        another by this name: :func:`nested_level_set_loss`.
    """
    check_number("level_set_weight", level_set_weight, minimum=0)
    check_number("epsilon", epsilon, above=0)
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = prepared.first_class(include_background)
    mask, v = prepared.mask, prepared.target[:, first:].unsqueeze(2)
    inside = (1 + ((prepared.probability()[:, first:] - 0.5) / epsilon).tanh()) / 2
    if mask is not None:
        inside = masked(inside, mask)
    misfit = region_misfit(v, inside, mask) + region_misfit(v, complement(inside, mask), mask)
    level_set = reduce(misfit, class_weights(weight, class_mask, prepared.logits, first), "mean")
    cross_entropy = cross_entropy_loss(
        cast(Tensor, prepared), target, include_background=include_background, class_mask=class_mask, weight=weight
    )
    return cross_entropy + level_set_weight * level_set


LevelSetLoss = as_module("LevelSetLoss", level_set_loss)
