"""TopK loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from multilevel_loss._checks import Mode, Reduction, check_choice, check_number
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, voxel_weights
from multilevel_loss._targets import FEW, Prepared, prepare
from multilevel_loss.losses.region._cross_entropy import (
    first_of_cross_entropy,
    reduce_weighted,
    voxel_cross_entropy,
)


@full_precision
def topk_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    k: float = 10.0,
    threshold: float | None = None,
    batch: bool = False,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""TopK loss: cross entropy of the hardest voxels alone.

    .. math:: -\frac{1}{|H|} \sum_{x \in H} \log p_t(x)

    with p_t the probability given to the truth and H the k % of voxels where it is least, or those where it is below
    a threshold.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out for multilabel; a softmax needs all of its classes.
        k: percentage of the voxels that count, above 0, up to 100; rounded down, one voxel at least. For multilabel,
            of the voxels of all channels.
        threshold: take the voxels with p_t below this instead, above 0, up to 1.
        batch: choose among the voxels of the batch together, not of each sample.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class, background included; relative, since the mean divides by its sum.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar, at least 0; (B, C', *spatial) for "none", 0 where not chosen.

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits. The voxels are chosen without a gradient and without the
        class weights; where more are equally hard than are left to choose, they may share the gradient. Where none is
        below the threshold the loss is 0.

    Example:
        >>> import torch
        >>> logits, target = torch.tensor([[[4.0, 3.0, 0.0, -4.0]]]), torch.tensor([[1, 1, 1, 0]])
        >>> round(topk_loss(logits, target, k=25).item(), 3)  # log 2
        0.693

    Source:
        Wu, Shen and van den Hengel, Bridging category-level and instance-level semantic image segmentation (2016),
        whose form is the threshold.
    """
    check_number("k", k, above=0)
    if k > 100:
        raise ValueError(f"expected `k` to be a percentage, at most 100, got {k!r}")
    if threshold is not None and not 0 < threshold <= 1:
        raise ValueError(f"expected `threshold` to be a probability above 0, got {threshold!r}")
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = first_of_cross_entropy(prepared, include_background)
    share = class_weights(weight, class_mask, prepared.logits, first)
    soft = prepared.truth.is_floating_point() or prepared.truth.shape[1] > 1
    check_choice("reduction", reduction, get_args(Reduction))
    alike = prepared.mask is None and share is None and first == 0 and not (soft and prepared.mode == "multiclass")
    rows = (1 if batch else len(prepared.logits), -1)
    if alike and threshold is None and reduction != "none":
        values = _cross_entropies(prepared).reshape(rows)
        number = _share_of(k, values)
        total = (values * hardest(values.detach(), number)).sum()
        return total / max(len(values) * number, 1) if reduction == "mean" else total
    of = voxel_cross_entropy(prepared, first)
    loss, count = of.loss, of.weight
    of_class = voxel_weights(share, None, loss)
    counted = (count if of_class is None else count * of_class) > 0
    hardness = loss.detach()
    if prepared.mode == "multiclass":  # the classes of a voxel are chosen together
        hardness, counted = hardness.sum(1, keepdim=True), counted.any(1, keepdim=True)
    hardness = hardness.masked_fill(~counted, -torch.inf)
    if threshold is None:
        chosen = _hardest(hardness.reshape(rows), counted.reshape(rows), k).view_as(hardness)
    else:
        chosen = (hardness > -math.log(threshold)).to(loss.dtype)
    return reduce_weighted(loss * chosen, count * chosen, share, reduction)


def _cross_entropies(prepared: Prepared) -> Tensor:
    """Return the cross entropy of each voxel, (B, *spatial), or of each of the channels of a sigmoid."""
    if prepared.mode == "multiclass":
        return F.cross_entropy(prepared.logits, prepared.truth.squeeze(1).long(), reduction="none")
    return F.binary_cross_entropy_with_logits(prepared.logits, prepared.target, reduction="none")


def _share_of(k: float, values: Tensor) -> int:
    """Return how many are k % of a row of `values`: one at least, of any."""
    return max(int(values.shape[1] * k / 100), min(1, values.shape[1]))


def hardest(values: Tensor, k: int) -> Tensor:
    """Return the share of each element of (R, N), all at least 0, in the `k` greatest of its row.

    It is 1 or 0, but for those that equal the least that is chosen: they share what is left to choose.
    """
    many = values.device.type == "cpu" and values.dtype == torch.float32 and values.numel() >= FEW
    if many and not torch.compiler.is_compiling():
        from multilevel_loss.losses.region import _hardest_cpu  # here, so that importing the package spares numba

        return _hardest_cpu.hardest(values.contiguous(), k)
    if k == 0:
        return torch.zeros_like(values)
    least = values.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
    above, equal = (values > least).to(values.dtype), (values == least).to(values.dtype)
    return above + equal * ((k - above.sum(1, keepdim=True)) / equal.sum(1, keepdim=True))


def _hardest(hardness: Tensor, counted: Tensor, k: float) -> Tensor:
    """Return 1 for the k % hardest of the counted elements of each row, 0 for the others."""
    most = _share_of(k, hardness)
    places = hardness.topk(most, dim=1).indices
    number = (counted.sum(1, keepdim=True) * k / 100).floor().clamp_min(1)
    among = torch.arange(most, device=hardness.device) < number
    return torch.zeros_like(hardness).scatter_(1, places, among.to(hardness.dtype))


TopKLoss = as_module("TopKLoss", topk_loss)
