"""Centreline Dice loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from multilevel_loss._checks import Mode, Reduction, check_number
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, reduce
from multilevel_loss._targets import prepare
from multilevel_loss.losses.region._counts import Empty, present_weight, smooth_ratio


@full_precision
def cl_dice_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    iterations: int = 3,
    smooth_nr: float = 1e-6,
    smooth_dr: float = 1e-6,
    empty: Empty = "score",
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Centreline Dice (clDice) loss: each region must hold the centreline of the other.

    .. math:: 1 - \frac{2 P S}{P + S}, \quad
        P = \frac{\sum s(p) v + \varepsilon_n}{\sum s(p) + \varepsilon_d}, \quad
        S = \frac{\sum s(v) p + \varepsilon_n}{\sum s(v) + \varepsilon_d}

    with p the probability and v the membership of a class, and s the :func:`soft_skeleton`.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out.
        iterations: of the skeleton, at least 0: the greatest radius of a vessel, in voxels.
        smooth_nr: ε of the numerator, from 0 to `smooth_dr`.
        smooth_dr: ε of the denominator, at least 0.
        empty: "score" treats a class that is absent from the truth as any other, "skip" leaves it out of the mean.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class, background included; relative, since the mean divides by its sum.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar in [0, 1] when averaged; (B, C') for "none".

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits. It sees the topology of tubes, not their width: add it to
        a Dice loss. A voxel that is masked is background to the skeletons.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 5, 7, dtype=torch.long)
        >>> target[:, 1:4] = 1
        >>> thin = torch.full((1, 1, 5, 7), -20.0)
        >>> thin[:, :, 2] = 20
        >>> round(cl_dice_loss(thin, target).item(), 3)  # the same centreline
        0.0

    Source:
        Shit et al., clDice: a novel topology-preserving loss function for tubular structure segmentation (CVPR 2021).
    """
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = prepared.first_class(include_background)
    p, v = prepared.probability()[:, first:], prepared.target[:, first:]
    of_p, of_v = soft_skeleton(p, iterations=iterations), soft_skeleton(v, iterations=iterations)
    precision, sensitivity = (
        smooth_ratio((skeleton * region).flatten(2).sum(2), skeleton.flatten(2).sum(2), smooth_nr, smooth_dr)
        for skeleton, region in ((of_p, v), (of_v, p))
    )
    both = (precision + sensitivity).clamp_min(torch.finfo(p.dtype).tiny)
    share = class_weights(weight, class_mask, prepared.logits, first)
    return reduce(1 - 2 * precision * sensitivity / both, present_weight(share, v.flatten(2).sum(2), empty), reduction)


def soft_skeleton(probability: Tensor, *, iterations: int = 3) -> Tensor:
    """Soft skeleton: what repeated erosion leaves where opening would remove it.

    Args:
        probability: (B, C, *spatial), 1 to 3 spatial dimensions, floating in [0, 1].
        iterations: at least 0: the greatest radius, in voxels, of what is to be thinned to its centre.

    Returns:
        (B, C, *spatial) of the dtype of `probability`, in [0, 1].

    Raises:
        ValueError: `probability` has not 1 to 3 spatial dimensions, or `iterations` is negative.

    Note:
        Differentiable. Erosion takes the face neighbours, dilation all neighbours; beyond the image edge nothing is
        eroded.

    Example:
        >>> import torch
        >>> soft_skeleton(torch.tensor([[[0.0, 1.0, 1.0, 1.0, 0.0]]]))
        tensor([[[0., 0., 1., 0., 0.]]])

    Source:
        Algorithm 1 of Shit et al., clDice (CVPR 2021).
    """
    check_number("iterations", iterations, minimum=0)
    if not 3 <= probability.ndim <= 5:
        raise ValueError(
            "expected `probability` to have shape (B, C, *spatial) with 1 to 3 spatial dimensions, "
            f"got shape {tuple(probability.shape)}"
        )
    skeleton = torch.zeros_like(probability)
    for _ in range(iterations + 1):
        eroded = _erode(probability)
        ridge = (probability - _POOL[probability.ndim - 3](eroded, 3, 1, 1)).relu()
        skeleton = skeleton + (ridge - skeleton * ridge).relu()
        probability = eroded
    return skeleton


_POOL = (F.max_pool1d, F.max_pool2d, F.max_pool3d)


def _erode(x: Tensor) -> Tensor:
    axes = x.ndim - 2
    pooled = -x
    for axis in range(axes):
        along = [int(other == axis) for other in range(axes)]
        pooled = torch.maximum(pooled, _POOL[axes - 1](-x, [1 + 2 * on for on in along], 1, along))
    return -pooled


ClDiceLoss = as_module("ClDiceLoss", cl_dice_loss)
