"""Lovász loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multilevel_loss._checks import Mode, Reduction
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, reduce
from multilevel_loss._targets import prepare
from multilevel_loss.losses.region._counts import Empty, present_weight


@full_precision
def lovasz_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    batch: bool = False,
    empty: Empty = "score",
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Lovász loss: the convex extension of the IoU loss from sets to predictions.

    .. math:: \sum_i m_{\pi_i} \bigl( J(\pi_1 \dots \pi_i) - J(\pi_1 \dots \pi_{i-1}) \bigr)

    with m the errors of the voxels, π their order from the greatest down, and J the IoU loss when just the given voxels
    are wrong. The errors are |v − p| for softmax (Lovász softmax) and max(0, 1 − x(2v − 1)), x the logit, for sigmoid
    modes (Lovász hinge).

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out.
        batch: order the voxels of the batch together, not of each sample.
        empty: "score" treats a class that is absent from the truth as any other, "skip" leaves it out of the mean.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class, background included; relative, since the mean divides by its sum.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar, at least 0, at most 1 for softmax when averaged; (B, C') for
        "none", where B = 1 with `batch`.

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits. Where the truth is empty, only the worst voxel has a
        gradient; ``empty="skip"`` leaves such a class out, as "present" does in the original. Sorting makes it
        slower than the other overlap losses.

    Example:
        >>> import torch
        >>> logits, target = torch.tensor([[[2.0, 2.0, -2.0, -2.0]]]), torch.tensor([[1, 0, 0, 0]])
        >>> lovasz_loss(logits, target).item()  # one voxel is wrong by 3, the IoU ½
        1.5

    Source:
        Berman, Rannen Triki and Blaschko, The Lovász-Softmax loss (CVPR 2018).
    """
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    first = prepared.first_class(include_background)
    v = prepared.target[:, first:].flatten(2)
    if prepared.mode == "multiclass":
        errors = (v - prepared.probability()[:, first:].flatten(2)).abs()
    else:
        errors = (1 - prepared.logits[:, first:].flatten(2) * (2 * v - 1)).relu()
        if prepared.mask is not None:
            errors = errors * prepared.mask.flatten(2)
    share = class_weights(weight, class_mask, prepared.logits, first)
    if batch:
        if share is not None:
            counted = (share > 0).to(v.dtype).unsqueeze(-1)
            errors, v, share = errors * counted, v * counted, share.amax(0, keepdim=True)
        errors, v = (part.movedim(0, 1).flatten(1).unsqueeze(0) for part in (errors, v))
    return reduce(_lovasz_extension(errors, v), present_weight(share, v.sum(-1), empty), reduction)


def _lovasz_extension(errors: Tensor, v: Tensor) -> Tensor:
    """Return the extension of the IoU loss at errors (B, C, N) ≥ 0; a voxel of error 0 has no part in it."""
    order = _from_greatest(errors.detach())
    v = v.gather(-1, order)
    truth = v.sum(-1, keepdim=True)
    overlap, union = truth - v.cumsum(-1), truth + (1 - v).cumsum(-1)
    iou_loss = 1 - overlap / union
    slope = torch.empty_like(errors).scatter_(-1, order, iou_loss.diff(prepend=torch.zeros_like(truth)))
    return (errors * slope).sum(-1)


def _from_greatest(errors: Tensor) -> Tensor:
    """Return the indices that sort errors (B, C, N) ≥ 0, the greatest first."""
    if errors.device.type != "cpu" or errors.dtype != torch.float32 or torch.compiler.is_compiling():
        return errors.argsort(-1, descending=True)
    # NumPy sorts numbers several times quicker than anyone finds their order, so the number tells its place as well:
    # the bits of floats, which order as these do, above, and the index below.
    keys = errors.contiguous().view(torch.int32).long().neg_().bitwise_left_shift_(32)
    keys += torch.arange(keys.shape[-1])
    keys.numpy().sort()
    return keys.bitwise_and_(2**32 - 1)


LovaszLoss = as_module("LovaszLoss", lovasz_loss)
