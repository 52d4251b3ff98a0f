"""Generalized Wasserstein Dice loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multilevel_loss._checks import Reduction
from multilevel_loss._module import as_module
from multilevel_loss._reduce import class_weights, full_precision, reduce
from multilevel_loss._targets import prepare
from multilevel_loss.losses.region._counts import smooth_ratio


@full_precision
def generalized_wasserstein_dice_loss(
    input: Tensor,
    target: Tensor,
    *,
    distances: Tensor | Sequence[Sequence[float]],
    include_background: bool = True,
    smooth_nr: float = 1e-6,
    smooth_dr: float = 1e-6,
    batch: bool = False,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    class_mask: Tensor | None = None,
    weight: Tensor | Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Generalized Wasserstein Dice loss: Dice of several classes some of which are more alike than others.

    .. math:: 1 - \frac{2 T + \varepsilon_n}{2 T + \sum_x W(x) + \varepsilon_d}, \quad
        W(x) = \sum_{c,k} M_{ck} p_c(x) v_k(x), \quad T = \sum_x \sum_{k > 0} v_k(x) (1 - W(x))

    with p the probability and v the membership of a class, and M the distances between the classes.

    Args:
        input: logits (B, C, *spatial), 1-D to 3-D, any floating dtype, C ≥ 2: a softmax is taken.
        target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
            (B, C, *spatial), floating in [0, 1].
        distances: M (C, C), symmetric, 0 on the diagonal, at least 0 elsewhere, greatest from every class to class 0,
            the background; divided by that.
        include_background: False leaves the voxels of class 0 out.
        smooth_nr: ε of the numerator, from 0 to `smooth_dr`.
        smooth_dr: ε of the denominator, at least 0.
        batch: sum over the samples of the batch as over voxels.
        ignore_index: label of voxels that do not count.
        mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
        class_mask: (B, C), nonzero where a class is labelled in a sample.
        weight: (C,) weight of the voxels of each class, background included.
        reduction: "mean", "sum" or "none".

    Returns:
        A float32 (float64 for float64 input) scalar in [0, 1] when averaged; (B, 1) for "none", where B = 1 with
        `batch`.

    Raises:
        TypeError: `input` or `target` is not a tensor, or `input` is not floating.
        ValueError: a shape, label or option breaks a rule above; the message says which.

    Note:
        Finite, with finite gradients, for any finite logits. Where there is nothing but background and it is found, the
        loss is 0.

    Example:
        >>> import torch
        >>> logits = 20 * torch.eye(3)[:, [0, 1, 1]].unsqueeze(0)  # voxel 2 is of class 2, taken for class 1
        >>> apart = [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
        >>> alike = [[0, 1, 1], [1, 0, 0.5], [1, 0.5, 0]]
        >>> for distances in (apart, alike):
        ...     loss = generalized_wasserstein_dice_loss(logits, torch.tensor([[0, 1, 2]]), distances=distances)
        ...     print(round(loss.item(), 3))
        0.333
        0.143

    Source:
        Fidon et al., Generalised Wasserstein Dice score for imbalanced multi-class segmentation using holistic
        convolutional networks (BrainLes 2017).
    """
    prepared = prepare(input, target, mode="multiclass", ignore_index=ignore_index, mask=mask)
    first = prepared.first_class(include_background)
    apart = _check_distances(distances, prepared.logits)
    # All that the distances weigh, as a confusion matrix: of class c predicted where the truth is k.
    members = prepared.target.flatten(2)
    confusion = prepared.probability().flatten(2) @ members.transpose(1, 2)
    cost, volume = (apart * confusion).sum(1)[:, first:], members.sum(2)[:, first:]
    share = class_weights(weight, class_mask, prepared.logits, first)
    labelled = None
    if share is not None:
        cost, volume = cost * share, volume * share
        labelled = (share > 0).to(cost.dtype).amax(1, keepdim=True).expand(len(cost), 1)
    if batch:
        cost, volume = cost.sum(0, keepdim=True), volume.sum(0, keepdim=True)
        labelled = None if labelled is None else labelled.amax(0, keepdim=True)
    background = 1 - first  # how many columns are background
    true = (volume - cost)[:, background:].sum(1, keepdim=True)
    return reduce(
        1 - smooth_ratio(2 * true, 2 * true + cost.sum(1, keepdim=True), smooth_nr, smooth_dr), labelled, reduction
    )


def _check_distances(distances: Tensor | Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """Return the distances between the classes, divided by their greatest."""
    apart = torch.as_tensor(distances, dtype=like.dtype)
    size = like.shape[1]
    rule = f"expected `distances` to be ({size}, {size}), a row a class"
    if tuple(apart.shape) != (size, size):
        raise ValueError(f"{rule}, got shape {tuple(apart.shape)}")
    if apart.device.type == "cpu" and not torch.compiler.is_compiling():
        far = apart.max()
        symmetric = torch.equal(apart, apart.T) and not apart.diagonal().any()
        if not symmetric or (apart < 0).any() or far == 0 or (apart[0, 1:] != far).any():
            raise ValueError(
                f"{rule}, symmetric, 0 on the diagonal, at least 0 elsewhere and greatest from every class to class 0, "
                f"the background, got {apart.tolist()}"
            )
    apart = apart.to(like.device)
    return apart / apart.max()


GeneralizedWassersteinDiceLoss = as_module("GeneralizedWassersteinDiceLoss", generalized_wasserstein_dice_loss)
