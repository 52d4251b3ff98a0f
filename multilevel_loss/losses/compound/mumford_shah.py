"""Mumford–Shah loss."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from multilevel_loss._checks import Mode, Reduction, Spacing, check_number
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, reduce
from multilevel_loss.losses.compound._contour import (
    check_image,
    complement,
    contour_length,
    prepare_unlabelled,
    region_misfit,
)


@full_precision
def mumford_shah_loss(
    input: Tensor,
    target: Tensor | None,
    *,
    image: Tensor,
    mode: Mode | None = None,
    include_background: bool = True,
    mu: float = 0.1,
    epsilon: float = 1e-8,
    spacing: Spacing | None = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Mumford–Shah loss: the image as pieces of one intensity each, one piece a class, with short borders.

    .. math:: \frac{1}{C |\Omega|} \sum_c \sum
        \Bigl( p_c \, |U - m_c|^2 + \mu \sqrt{|\nabla p_c|^2 + \varepsilon} \Bigr),
        \quad m_c = \frac{\sum p_c U}{\sum p_c}

    with U the image. A channel of sigmoid modes stands for two classes, p and 1 − p.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: None; or a target as other losses take it, of which only `ignore_index` is looked at.
        image: U (B, K, *spatial), K intensities a voxel; scale them to about [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out.
        mu: μ, weight of the length, at least 0.
        epsilon: ε, greater than 0, keeps the gradient finite where p is flat.
        spacing: mm, in the axis order of the tensor (D, H, W): a number, one a spatial axis, or (B, number of axes);
            None measures in voxels.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        class_mask: (B, C), nonzero where a class counts in a sample.
        weight: (C,) weight of each class, background included; relative, since the mean divides by its sum.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar, at least 0; (B, C') for "none".

    Raises:
        TypeError: `input` is not a floating tensor.
        ValueError: a shape or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits and image. It says nothing of which piece is which class;
        labels must. A NaN logit gives a NaN loss unless it is masked.

    Example:
        >>> import torch
        >>> image = torch.tensor([[[0.0, 0.0, 0.5, 0.5, 1.0, 1.0]]])
        >>> pieces = 20 * torch.nn.functional.one_hot(torch.tensor([[0, 0, 1, 1, 2, 2]]), 3).float().movedim(-1, 1)
        >>> round(mumford_shah_loss(pieces, None, image=image, mu=0.0).item(), 3)
        0.0

    Source:
        Kim and Ye, Mumford–Shah loss functional for image segmentation with deep learning (IEEE TIP 2020), without
        their bias field; sums are means here.
    """
    check_number("mu", mu, minimum=0)
    check_number("epsilon", epsilon, above=0)
    prepared = prepare_unlabelled(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = prepared.first_class(include_background)
    region = prepared.probability()[:, first:]
    intensities = check_image(image, prepared).unsqueeze(1)
    misfit = region_misfit(intensities, region, prepared.mask)
    if prepared.mode != "multiclass":
        misfit = (misfit + region_misfit(intensities, complement(region, prepared.mask), prepared.mask)) / 2
    loss = misfit + mu * contour_length(region, prepared.mask, spacing, epsilon)
    return reduce(loss, class_weights(weight, class_mask, prepared.logits, first), reduction)


MumfordShahLoss = as_module("MumfordShahLoss", mumford_shah_loss)
