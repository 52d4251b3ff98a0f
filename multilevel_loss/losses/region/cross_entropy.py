"""Cross-entropy loss, and the voxel weights of U-Net."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from multilevel_loss._checks import Mode, Reduction, Spacing, check_number, check_spacing
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision
from multilevel_loss._targets import FEW, Prepared, prepare
from multilevel_loss.distance.maps import distance_map
from multilevel_loss.losses.region._cross_entropy import (
    CrossEntropy,
    cross_entropy,
    first_of_cross_entropy,
    reduce_weighted,
)


@full_precision
def cross_entropy_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    balance: bool = False,
    voxel_weight: Tensor | None = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy loss, weighed by class and by voxel.

    .. math:: -\frac{\sum_x w(x) \sum_c w_c v_c(x) \log p_c(x)}{\sum_x w(x) \sum_c w_c v_c(x)}

    for softmax; the binary cross entropy of each channel for sigmoid modes.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out for multilabel; a softmax needs all of its classes.
        balance: weigh each voxel by one over the number of its class in its sample, so that the mean is that of the
            means over each class; for sigmoid modes, over the voxels of a channel's class and over the others.
        voxel_weight: w (B, *spatial) or (B, 1, *spatial), at least 0, such as :func:`unet_weight_map` returns; None
            for 1.
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
        Finite, with finite gradients, for any finite logits. Without weights it is that of torch, for the dtypes of
        labels that torch does not take too.

    Example:
        >>> import torch
        >>> logits, target = torch.zeros(1, 1, 2, 2), torch.tensor([[[1, 0], [0, 0]]])
        >>> round(cross_entropy_loss(logits, target).item(), 3)  # log 2
        0.693

    Source:
        Ronneberger, Fischer and Brox, U-Net: convolutional networks for biomedical image segmentation (MICCAI 2015);
        a mean here.
    """
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = first_of_cross_entropy(prepared, include_background)
    shared = isinstance(input, Prepared)
    plain = not (balance or first or shared) and all(each is None for each in (voxel_weight, class_mask, weight))
    if plain and reduction in ("mean", "sum") and _is_quicker_in_torch(prepared):
        return _of_torch(prepared, reduction)
    weight_of_voxel = None if voxel_weight is None else _check_voxel_weight(voxel_weight, prepared)
    of = cross_entropy(prepared, first, reduction, weight=weight_of_voxel)
    if balance:
        of = _balanced(of)
    return reduce_weighted(of.loss, of.weight, class_weights(weight, class_mask, prepared.logits, first), reduction)


def _is_quicker_in_torch(prepared: Prepared) -> bool:
    """Whether torch's own cross entropy takes the target as it is, and less time."""
    if torch.compiler.is_compiling():
        return False
    logits, truth = prepared.logits, prepared.truth
    few = logits.device.type == "cpu" and 0 < logits.numel() < FEW and prepared.mask is None
    return few and (prepared.mode != "multiclass" or (truth.shape[1] == 1 and not truth.is_floating_point()))


def _of_torch(prepared: Prepared, reduction: str) -> Tensor:
    if prepared.mode == "multiclass":
        return F.cross_entropy(prepared.logits, prepared.truth.squeeze(1).long(), reduction=reduction)
    # Without a mask, labels of one class are its memberships.
    return F.binary_cross_entropy_with_logits(prepared.logits, prepared.truth.to(prepared.logits), reduction=reduction)


def _balanced(of: CrossEntropy) -> CrossEntropy:
    """Return the cross entropies divided by the number of voxels of each kind in each sample."""
    by_members = _inverse_number(of.members)
    positive, members = of.positive * by_members, of.members * by_members
    if of.negative is None:
        return CrossEntropy(positive, None, members, members)
    others = of.weight - of.members
    by_others = _inverse_number(others)
    return CrossEntropy(positive, of.negative * by_others, members, members + others * by_others)


def _inverse_number(weights: Tensor) -> Tensor:
    number = weights.reshape(*weights.shape[:2], -1).sum(-1)
    number = number.view(*number.shape, *[1] * (weights.ndim - 2))
    return torch.where(number > 0, 1 / torch.where(number > 0, number, 1), 0)


def _check_voxel_weight(voxel_weight: Tensor, prepared: Prepared) -> Tensor:
    batch, _, *grid = prepared.logits.shape
    allowed = [(batch, *grid), (batch, 1, *grid)]
    if not isinstance(voxel_weight, Tensor) or tuple(voxel_weight.shape) not in allowed:
        came = tuple(voxel_weight.shape) if isinstance(voxel_weight, Tensor) else type(voxel_weight).__name__
        raise ValueError(
            f"expected `voxel_weight` to have one value a voxel, shape {(batch, *grid)} or {(batch, 1, *grid)}, "
            f"got {came}"
        )
    if voxel_weight.device.type == "cpu" and not torch.compiler.is_compiling() and bool((voxel_weight < 0).any()):
        raise ValueError(f"expected `voxel_weight` to be at least 0, got {voxel_weight.min().item():g}")
    return voxel_weight.detach().to(prepared.logits).reshape(batch, 1, *grid)


def unet_weight_map(
    target: Tensor,
    *,
    w0: float = 10.0,
    sigma: float = 5.0,
    spacing: Spacing | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    r"""Voxel weights that balance the classes and press apart objects that nearly touch.

    .. math:: w_c + w_0 \exp \Bigl( -\frac{(d_1 + d_2)^2}{2 \sigma^2} \Bigr)

    with d_1 and d_2 the distances to the two nearest objects, the connected components of the classes but 0, and w_c
    inversely proportional to the frequency of a voxel's class in its sample, 1 on average.

    Args:
        target: label map (B, *spatial), 1 to 3 spatial dimensions, any integer or bool dtype, on any device.
        w0: the greatest weight that nearness adds, at least 0.
        sigma: how near is near, > 0, in voxels, or mm with `spacing`.
        spacing: mm, in the axis order of the tensor (D, H, W): a number, one a spatial axis, or (B, number of axes);
            None measures in voxels.
        ignore_index: label of voxels that do not count; they weigh 0.

    Returns:
        float32 (B, 1, *spatial), at least 0, on the device of `target`: the `voxel_weight` of
        :func:`cross_entropy_loss`.

    Raises:
        TypeError: `target` is not an integer or bool tensor.
        ValueError: a shape or option breaks a rule above; the message says which.

    Note:
        Objects are found on the CPU, and each takes a distance map of its own: compute this where the data are loaded.
        A sample of fewer than two objects has the weights of its classes alone.

    Example:
        >>> import torch
        >>> unet_weight_map(torch.tensor([[1, 1, 0, 1]]), sigma=1.0)  # d₁ + d₂ is 3, 2, 2, 2: w_c is ⅔ and 2
        tensor([[[0.7778, 2.0200, 3.3534, 2.0200]]])

    Source:
        Eq. 2 of Ronneberger, Fischer and Brox, U-Net (MICCAI 2015). Inside an object d_1 is 0.
    """
    check_number("w0", w0, minimum=0)
    check_number("sigma", sigma, above=0)
    if not isinstance(target, Tensor) or target.is_floating_point() or target.is_complex():
        came = target.dtype if isinstance(target, Tensor) else type(target).__name__
        raise TypeError(f"expected `target` to be a label map of integers, got {came}")
    if not 2 <= target.ndim <= 4:
        raise ValueError(
            "expected `target` to be a label map of shape (B, *spatial) with 1 to 3 spatial dimensions, "
            f"got shape {tuple(target.shape)}"
        )
    from scipy import ndimage  # here, so that importing the package does not import it

    steps = check_spacing(spacing, target.shape[0], target.ndim - 1)
    weights = []
    for sample, labels in enumerate(target.cpu()):
        known = torch.ones_like(labels, dtype=torch.bool) if ignore_index is None else labels != ignore_index
        classes, place, count = labels[known].unique(return_inverse=True, return_counts=True)
        weight = torch.zeros(labels.shape)
        weight[known] = (count.sum() / (len(count) * count))[place]
        nearest = second = torch.full(labels.shape, torch.inf)
        for label in classes[classes != 0].tolist():
            components, number = ndimage.label((labels == label).numpy())
            for index in range(1, number + 1):
                one = torch.from_numpy(components == index)
                step = None if steps is None else steps[sample]
                distance = distance_map(one.unsqueeze(0), side="outside", spacing=step)[0, 0]
                second = torch.minimum(second, torch.maximum(nearest, distance))
                nearest = torch.minimum(nearest, distance)
        near = w0 * torch.exp(-((nearest + second) ** 2) / (2 * sigma**2))
        weights.append(weight + near * known)
    return torch.stack(weights).unsqueeze(1).to(target.device)


CrossEntropyLoss = as_module("CrossEntropyLoss", cross_entropy_loss)
