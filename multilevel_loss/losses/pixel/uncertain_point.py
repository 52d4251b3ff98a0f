"""Uncertain-point loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from multilevel_loss._checks import Mode, Reduction
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, reduce
from multilevel_loss._targets import Prepared, from_class, prepare
from multilevel_loss.losses.pixel._point_sums import point_sums
from multilevel_loss.losses.region._cross_entropy import first_of_cross_entropy, reduce_weighted
from multilevel_loss.points import nearest_points, sample_memberships, sample_points, uncertain_points


@full_precision
def uncertain_point_loss(
    input: Tensor,
    target: Tensor,
    *,
    mode: Mode | None = None,
    include_background: bool = True,
    num_points: int = 2048,
    oversample_ratio: float = 3.0,
    importance_sample_ratio: float = 0.75,
    point_coords: Tensor | None = None,
    generator: torch.Generator | None = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Uncertain-point loss: cross entropy where the prediction hesitates.

    .. math:: -\frac{1}{|S|} \sum_{x \in S} \sum_c v_c(x) \log p_c(x)

    over a set S of points drawn near the decision boundary; binary cross entropy for sigmoid modes.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype; may be coarser or finer than `target`.
        target: label map (B, *spatial') or (B, 1, *spatial'), any integer or bool dtype, or class memberships
            (B, C, *spatial'), floating in [0, 1]; sampled at the same places, linearly.
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out for multilabel; a softmax needs all of its classes.
        num_points: N, the points of each sample, at least 1.
        oversample_ratio: k, at least 1: k·N candidates are drawn.
        importance_sample_ratio: m, from 0 to 1: m·N points are the most uncertain candidates, the others fresh.
        point_coords: (B, P, D) in [0, 1], x first, replays these points instead of drawing any.
        generator: the source of randomness; torch's default one when None.
        ignore_index: label of voxels that do not count; no point is drawn there.
        mask: (B, *spatial') or (B, 1, *spatial'), nonzero where a voxel counts; no point is drawn elsewhere.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of each class, background included; relative, since the mean divides by its sum.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar, at least 0; (B, C', P) for "none".

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite for any finite logits. The points are chosen without a gradient. A NaN logit is chosen first and
        gives a NaN loss. The same `generator` state gives the same points.

    Example:
        >>> import torch
        >>> logits, target = torch.zeros(1, 1, 8, 8), torch.ones(1, 8, 8, dtype=torch.long)
        >>> round(uncertain_point_loss(logits, target).item(), 3)  # log 2
        0.693

    Source:
        Eq. 10 of Liu et al., a mean here; points as in PointRend (Kirillov et al., CVPR 2020).
    """
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask, same_grid=False)
    if point_coords is None:
        point_coords = uncertain_points(
            prepared.logits,
            num_points,
            mode=prepared.mode,
            oversample_ratio=oversample_ratio,
            importance_sample_ratio=importance_sample_ratio,
            mask=prepared.mask,
            generator=generator,
        )
    sums = None if reduction == "none" else point_sums(prepared, point_coords)
    if sums is not None:
        first = first_of_cross_entropy(prepared, include_background)
        share = class_weights(weight, class_mask, prepared.logits, first)
        return reduce_weighted(from_class(first, sums.entropy), from_class(first, sums.weight), share, reduction)
    # Only on the grid of the target is it known which logits count.
    same_grid = prepared.logits.shape[2:] == prepared.truth.shape[2:]
    known = prepared.mask if same_grid else None
    return point_cross_entropy(
        sample_points(prepared.logits, point_coords, known),
        prepared,
        point_coords,
        include_background=include_background,
        weight=weight,
        class_mask=class_mask,
        reduction=reduction,
    )


def point_cross_entropy(
    logits: Tensor,
    prepared: Prepared,
    point_coords: Tensor,
    *,
    include_background: bool,
    weight: Tensor | Sequence[float] | None,
    class_mask: Tensor | None,
    reduction: Reduction,
) -> Tensor:
    """Reduce the cross entropy of logits (B, C, P) at points (B, P, D)."""
    first = first_of_cross_entropy(prepared, include_background)
    of_class = class_weights(weight, class_mask, prepared.logits, first)
    truth = sample_memberships(
        prepared.truth, prepared.logits.shape[1], point_coords, prepared.mask, prepared.logits.dtype
    )
    share = None if of_class is None else of_class.unsqueeze(-1)
    if prepared.mask is not None:
        counts = nearest_points(prepared.mask, point_coords).to(truth.dtype)
        share = counts if share is None else share * counts
    if prepared.mode == "multiclass":
        return reduce(-logits.log_softmax(1), truth if share is None else share * truth, reduction)
    loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")[:, first:]
    return reduce(loss, share, reduction)


UncertainPointLoss = as_module("UncertainPointLoss", uncertain_point_loss)
