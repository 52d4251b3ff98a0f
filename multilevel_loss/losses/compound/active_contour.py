"""Active contour loss."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from multilevel_loss._checks import Mode, Reduction, Spacing, check_number
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, reduce
from multilevel_loss._targets import prepare
from multilevel_loss.losses.compound._contour import contour_length, voxel_mean


@full_precision
def active_contour_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    region_weight: float = 1.0,
    epsilon: float = 1e-8,
    spacing: Spacing | None = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Active contour loss: the length of the predicted contour, and the region it should enclose.

    .. math:: \frac{1}{|\Omega|} \sum \sqrt{|\nabla p|^2 + \varepsilon}
        + \frac{\lambda}{|\Omega|} \sum \bigl( p \, (1 - v)^2 + (1 - p) \, v^2 \bigr)

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out.
        region_weight: λ, at least 0.
        epsilon: ε, greater than 0, keeps the gradient finite where p is flat.
        spacing: mm, in the axis order of the tensor (D, H, W): a number, one a spatial axis, or (B, number of axes);
            None measures in voxels.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class, background included; relative, since the mean divides by its sum.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar, at least 0; (B, C') for "none".

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits. A perfect prediction keeps the length of its contour,
        so that the loss does not reach 0. A NaN logit gives a NaN loss unless it is masked.

    Example:
        >>> import torch
        >>> logits = torch.full((1, 1, 5, 5), -40.0)
        >>> logits[..., 1:4, 1:4] = 40.0
        >>> target = (logits > 0).long()[:, 0]
        >>> round(16 * active_contour_loss(logits, target).item(), 2)  # 4 sides of 2 voxels and 4 corners of √½
        10.83

    Source:
        Chen et al., Learning active contour models for medical image segmentation (CVPR 2019), whose sums are means
        here, in 1-D to 3-D.
    """
    check_number("region_weight", region_weight, minimum=0)
    check_number("epsilon", epsilon, above=0)
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = prepared.first_class(include_background)
    p, v = prepared.probability()[:, first:], prepared.target[:, first:]
    region = voxel_mean(p * (1 - v).square() + (1 - p) * v.square(), prepared.mask)
    loss = contour_length(p, prepared.mask, spacing, epsilon) + region_weight * region
    return reduce(loss, class_weights(weight, class_mask, prepared.logits, first), reduction)


ActiveContourLoss = as_module("ActiveContourLoss", active_contour_loss)
