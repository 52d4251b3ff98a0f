"""Focal loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multilevel_loss._checks import Mode, Reduction, check_number
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision
from multilevel_loss._targets import prepare
from multilevel_loss.losses.region._cross_entropy import (
    CrossEntropy,
    cross_entropy,
    first_of_cross_entropy,
    reduce_weighted,
)


@full_precision
def focal_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    gamma: float = 2.0,
    alpha: float | None = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Focal loss: cross entropy that fades on the voxels that are right already.

    .. math:: -\alpha_t (1 - p_t)^\gamma \log p_t

    averaged over the voxels, with p_t the probability given to the truth: p_c of its class for softmax; p of a
    channel, or 1 − p off its class, for sigmoid modes.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out for multilabel; a softmax needs all of its classes.
        gamma: γ, at least 0; 0 is cross entropy.
        alpha: α_t on the structure, 1 − α on its background, from 0 to 1; for multiclass on every class but 0, and on
            class 0. None for 1 everywhere. A factor of the loss, by which the mean does not divide.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class, background included; relative, since the mean divides by its sum.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar, at least 0; (B, C', *spatial) for "none", where a term of a
        multiclass loss is 0 off its class.

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits and any γ.

    Example:
        >>> import torch
        >>> logits, target = torch.zeros(1, 1, 2, 2), torch.tensor([[[1, 0], [0, 0]]])
        >>> round(focal_loss(logits, target).item(), 3)  # ¼ log 2
        0.173

    Source:
        Lin et al., Focal loss for dense object detection (ICCV 2017).
    """
    check_number("gamma", gamma, minimum=0)
    check_alpha(alpha)
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = first_of_cross_entropy(prepared, include_background)
    of = cross_entropy(prepared, first, reduction, gamma=gamma)
    loss = alpha_balanced(of, alpha)
    share = class_weights(weight, class_mask, prepared.logits, first)
    return reduce_weighted(loss, of.weight, share, reduction)


def check_alpha(alpha: float | None) -> None:
    """Raise ValueError unless `alpha` is None or from 0 to 1."""
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"expected `alpha` to be from 0 to 1, got {alpha!r}")


def alpha_balanced(of: CrossEntropy, alpha: float | None) -> Tensor:
    """Return the cross entropies with the factor α, or 1 − α off the class, or in class 0 of a softmax."""
    if alpha is None:
        return of.loss
    if of.negative is not None:
        return alpha * of.positive + (1 - alpha) * of.negative
    factor = torch.full_like(of.positive[:1], alpha)
    factor[:, :1] = 1 - alpha
    return factor * of.positive


FocalLoss = as_module("FocalLoss", focal_loss)
