"""Chan–Vese loss."""

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
    voxel_mean,
)


@full_precision
def chan_vese_loss(
    input: Tensor,
    target: Tensor | None,
    *,
    image: Tensor,
    mode: Mode | None = None,
    include_background: bool = True,
    mu: float = 0.1,
    nu: float = 0.0,
    lambda_inside: float = 1.0,
    lambda_outside: float = 1.0,
    epsilon: float = 1e-8,
    spacing: Spacing | None = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Chan–Vese loss: a short contour between two regions of the image that are each of nearly one intensity.

    .. math:: \frac{1}{|\Omega|} \sum \Bigl( \mu \sqrt{|\nabla p|^2 + \varepsilon} + \nu \, p
        + \lambda_1 \, p \, |U - c_1|^2 + \lambda_2 \, (1 - p) \, |U - c_2|^2 \Bigr)

    with U the image, c₁ = Σ pU / Σ p and c₂ = Σ (1 − p)U / Σ (1 − p). Each class is set against all others.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: None; or a target as other losses take it, of which only `ignore_index` is looked at.
        image: U (B, K, *spatial), K intensities a voxel; scale them to about [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out.
        mu: μ, weight of the length, at least 0.
        nu: ν, weight of the area; below 0 it inflates.
        lambda_inside: λ₁, at least 0.
        lambda_outside: λ₂, at least 0.
        epsilon: ε, greater than 0, keeps the gradient finite where p is flat.
        spacing: mm, in the axis order of the tensor (D, H, W): a number, one a spatial axis, or (B, number of axes);
            None measures in voxels.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        class_mask: (B, C), nonzero where a class counts in a sample.
        weight: (C,) weight of each class, background included; relative, since the mean divides by its sum.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar, at least 0 where ν is; (B, C') for "none".

    Raises:
        TypeError: `input` is not a floating tensor.
        ValueError: a shape or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits and image. Where p is 0 everywhere the other region is
        the whole image. Inside and outside may change places at no cost. A NaN logit gives a NaN loss unless it is
        masked.

    Example:
        >>> import torch
        >>> image = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
        >>> right, wrong = torch.tensor([[[-9.0, -9.0, 9.0, 9.0]]]), torch.tensor([[[9.0, -9.0, 9.0, -9.0]]])
        >>> [round(chan_vese_loss(logits, None, image=image, mu=0.0).item(), 2) for logits in (right, wrong)]
        [0.0, 0.25]

    Source:
        Eq. 2 of Liu et al., from Chan and Vese, Active contours without edges (IEEE TIP 2001); integrals are means
        here.
    """
    for name, value in (("mu", mu), ("lambda_inside", lambda_inside), ("lambda_outside", lambda_outside)):
        check_number(name, value, minimum=0)
    check_number("nu", nu)
    check_number("epsilon", epsilon, above=0)
    prepared = prepare_unlabelled(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = prepared.first_class(include_background)
    inside = prepared.probability()[:, first:]
    intensities = check_image(image, prepared).unsqueeze(1)
    loss = (
        mu * contour_length(inside, prepared.mask, spacing, epsilon)
        + nu * voxel_mean(inside, prepared.mask)
        + lambda_inside * region_misfit(intensities, inside, prepared.mask)
        + lambda_outside * region_misfit(intensities, complement(inside, prepared.mask), prepared.mask)
    )
    return reduce(loss, class_weights(weight, class_mask, prepared.logits, first), reduction)


ChanVeseLoss = as_module("ChanVeseLoss", chan_vese_loss)
