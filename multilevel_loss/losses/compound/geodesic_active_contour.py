"""Geodesic active contour loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from multilevel_loss._checks import Mode, Reduction, Spacing, check_number
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, reduce
from multilevel_loss.losses.compound._contour import check_image, contour_length, prepare_unlabelled, slope


@full_precision
def geodesic_active_contour_loss(
    input: Tensor,
    target: Tensor | None,
    *,
    image: Tensor,
    mode: Mode | None = None,
    include_background: bool = True,
    sigma: float = 1.0,
    kappa: float = 1.0,
    epsilon: float = 1e-8,
    spacing: Spacing | None = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Geodesic active contour loss: the length of the predicted contour, cheap along the edges of the image.

    .. math:: \frac{1}{|\Omega|} \sum g \sqrt{|\nabla p|^2 + \varepsilon},
        \quad g = \frac{1}{1 + |\nabla (G_\sigma * U)|^2 / \kappa^2}

    with U the image and G_σ a Gaussian. ∇p = δ(φ) ∇φ for the level set function φ = input and δ the slope of the
    activation.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: None; or a target as other losses take it, of which only `ignore_index` is looked at.
        image: U (B, K, *spatial), K intensities a voxel.
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out.
        sigma: σ in voxels, at least 0.
        kappa: κ, greater than 0, the slope of the image at which g is ½: 1 suits intensities from 0 to 255, some 0.05
            those from 0 to 1.
        epsilon: ε, greater than 0, keeps the gradient finite where p is flat.
        spacing: mm, in the axis order of the tensor (D, H, W): a number, one a spatial axis, or (B, number of axes);
            slopes are then taken per mm, in voxels when None.
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
        Finite, with finite gradients, for any finite logits and image. Its least value is that of no contour at all:
        add it to a loss that knows the labels, with a small weight. A NaN logit gives a NaN loss unless it is masked.

    Example:
        >>> import torch
        >>> image = torch.tensor([[[0.0, 0.0, 0.0, 9.0, 9.0, 9.0]]])
        >>> at_edge, beside = torch.full((2, 1, 1, 6), -9.0)
        >>> at_edge[..., 3:] = beside[..., 5:] = 9.0
        >>> costs = [geodesic_active_contour_loss(p, None, image=image).item() for p in (at_edge, beside)]
        >>> [round(cost, 2) for cost in costs]
        [0.01, 0.16]

    Source:
        Ma, He and Yang, Learning geodesic active contours for embedding object global information in segmentation
        CNNs (IEEE TMI 2021), from Caselles et al. (IJCV 1997). Their sum is a mean here; κ is ours.
    """
    check_number("sigma", sigma, minimum=0)
    check_number("kappa", kappa, above=0)
    check_number("epsilon", epsilon, above=0)
    prepared = prepare_unlabelled(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = prepared.first_class(include_background)
    smooth = _gaussian(check_image(image, prepared), sigma)
    edges = slope(smooth, spacing, 0.0).square().sum(1, keepdim=True)
    loss = contour_length(
        prepared.probability()[:, first:], prepared.mask, spacing, epsilon, density=1 / (1 + edges / kappa**2)
    )
    return reduce(loss, class_weights(weight, class_mask, prepared.logits, first), reduction)


def _gaussian(image: Tensor, sigma: float) -> Tensor:
    """Return the image (B, K, *spatial) smoothed along each axis; its border goes on beyond the edge."""
    radius = math.ceil(3 * sigma)
    if radius == 0:
        return image
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    for axis in range(2, image.ndim):
        lines = image.movedim(axis, -1)
        padded = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (radius, radius), mode="replicate")
        image = F.conv1d(padded, kernel).view(lines.shape).movedim(-1, axis)
    return image


GeodesicActiveContourLoss = as_module("GeodesicActiveContourLoss", geodesic_active_contour_loss)
