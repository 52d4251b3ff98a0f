"""Cross entropy of regions and of boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor

from multilevel_loss._checks import Mode, check_number
from multilevel_loss._module import as_module
from multilevel_loss._reduce import full_precision
from multilevel_loss._targets import prepare
from multilevel_loss.losses.compound._edges import boundary_cross_entropy
from multilevel_loss.losses.region.cross_entropy import cross_entropy_loss


@full_precision
def ce_ce_loss(
    input: Tensor,
    target: Tensor,
    *,
    boundary_input: Tensor,
    mode: Mode | None = None,
    include_background: bool = True,
    boundary_weight: float = 1.0,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
) -> Tensor:
    r"""Cross entropy of regions and of boundaries, for a network with a head for each.

    .. math:: \text{CE}(p, v) + \frac{\lambda}{|\Omega|} \sum
        - \partial v \log q - (1 - \partial v) \log(1 - q)

    with q = sigmoid(boundary_input) and ∂v the voxels of a class that have a face neighbour outside it.

    Args:
        input: logits of the regions (B, C, *spatial), 1-D to 3-D, any floating dtype.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        boundary_input: logits of the boundaries, (B, C, *spatial), or (B, 1, *spatial) for those of all classes that
            count together.
        mode: "binary" (sigmoid), "multiclass" (softmax) or "multilabel" (sigmoid); None for binary when C = 1,
            multiclass otherwise.
        include_background: False leaves class 0 of several out of the boundaries, and for multilabel of both terms; the
            softmax of the regions needs all of its classes.
        boundary_weight: λ, at least 0.
        ignore_index: label of voxels that do not count; nor do their neighbours for the boundary.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts; likewise.
        class_mask: (B, C), nonzero where a class is labelled in a sample; a sample in which one is not has no
            boundary of all classes together.
        weight: (C,) weight of each class, background included.

    Returns:
        A float32 (float64 for float64 input) scalar, at least 0.

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits. The boundary being thin, its term is small, and
        predicting none costs little; :func:`nested_level_set_loss` balances it. A NaN logit gives a NaN loss unless it
        is masked.

    Example:
        >>> import torch
        >>> target = torch.tensor([[0, 0, 1, 1, 1, 1, 0, 0]])
        >>> boundary = torch.tensor([[[-1.0, -1, 1, -1, -1, 1, -1, -1]]])
        >>> region = 2 * target.float().unsqueeze(1) - 1
        >>> round(ce_ce_loss(9 * region, target, boundary_input=9 * boundary).item(), 3)
        0.0

    Source:
        Shen et al., Boundary-aware fully convolutional network for brain tumor segmentation (MICCAI 2017).
    """
    check_number("boundary_weight", boundary_weight, minimum=0)
    prepared = prepare(input, target, mode=mode, ignore_index=ignore_index, mask=mask)
    regions = cross_entropy_loss(
        cast(Tensor, prepared), target, include_background=include_background, class_mask=class_mask, weight=weight
    )
    boundaries = boundary_cross_entropy(
        prepared,
        boundary_input,
        balanced=False,
        include_background=include_background,
        class_mask=class_mask,
        weight=weight,
    )
    return regions + boundary_weight * boundaries


CECELoss = as_module("CECELoss", ce_ce_loss)
