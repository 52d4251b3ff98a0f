"""The one rule by which classes, voxels and samples are weighted and reduced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast, get_args

import torch
from torch import Tensor

from multilevel_loss._checks import Reduction, check_choice

F = TypeVar("F", bound=Callable[..., Any])


def full_precision(function: F) -> F:
    """Make `function` run with autocast disabled on the device of its first argument."""

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        first = args[0] if args else next(iter(kwargs.values()), None)
        # What is no tensor has no device; the function itself says what is wrong with it.
        kind = getattr(first, "device", torch.device("cpu")).type
        # Some devices know no autocast, which older compilers cannot ask.
        knows = torch.compiler.is_compiling() or torch.amp.is_autocast_available(kind)
        if not (knows and torch.is_autocast_enabled(kind)):  # to enter costs as much as a small loss's arithmetic
            return function(*args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return function(*args, **kwargs)

    return cast(F, wrapper)


def class_weights(
    weight: Tensor | Sequence[float] | None, class_mask: Tensor | None, like: Tensor, first_class: int = 0
) -> Tensor | None:
    """Return the weight of each class that counts of each sample, (1, C') or (B, C'), or None when all weigh 1.

    Args:
        weight: one value a class, length C, background included.
        class_mask: (B, C), nonzero where the class of the sample is labelled.
        like: a tensor (B, C, ...) giving the sizes, device and dtype.
        first_class: the first class that counts.
    """
    batch, channels = like.shape[:2]
    result = None
    if weight is not None:
        result = torch.as_tensor(weight, dtype=like.dtype, device=like.device)
        if tuple(result.shape) != (channels,):
            raise ValueError(
                f"expected `weight` to have one value a class, background included, shape ({channels},), "
                f"got shape {tuple(result.shape)}"
            )
        if result.device.type == "cpu" and not torch.compiler.is_compiling() and bool((result < 0).any()):
            raise ValueError(f"expected `weight` to hold values of at least 0, got {result.tolist()}")
        result = result.unsqueeze(0)
    if class_mask is not None:
        if tuple(class_mask.shape) != (batch, channels):
            raise ValueError(
                f"expected `class_mask` to have shape (B, C) = ({batch}, {channels}), got {tuple(class_mask.shape)}"
            )
        labelled = class_mask.to(device=like.device).bool().to(like.dtype)
        result = labelled if result is None else labelled * result
    return None if result is None else result[:, first_class:]


def voxel_weights(weight: Tensor | None, mask: Tensor | None, like: Tensor) -> Tensor | None:
    """Return the weight of each voxel and class, broadcastable to `like` (B, C', *spatial), or None when all weigh 1.

    Args:
        weight: (B, C') or (1, C'), as from :func:`class_weights`.
        mask: (B, 1, *spatial) bool, True where a voxel counts.
        like: a tensor giving the number of axes and the dtype.
    """
    result = None if weight is None else weight.view(*weight.shape, *[1] * (like.ndim - 2))
    if mask is None:
        return result
    counts = mask.to(like.dtype)
    return counts if result is None else result * counts


def scaled(weight: float, loss: Tensor) -> Tensor:
    """Return `weight` times a loss, without an operation where that is the loss."""
    return loss if weight == 1 else weight * loss


def reduce(loss: Tensor, weight: Tensor | None, reduction: Reduction) -> Tensor:
    """Reduce a loss by the weight of each of its elements.

    mean = Σ w·loss / Σ w (0 when every weight is 0), sum = Σ w·loss, none = w·loss.

    Args:
        loss: the elements.
        weight: broadcastable to `loss`, at least 0; None for 1 everywhere.
        reduction: "mean", "sum" or "none".
    """
    check_choice("reduction", reduction, get_args(Reduction))
    if weight is None:
        if reduction == "none":
            return loss
        # An empty batch has no mean; 0 keeps it harmless, as a fully masked one. The gradient of a sum, unlike that of
        # a mean, is not written out.
        return loss.sum() / max(loss.numel(), 1) if reduction == "mean" else loss.sum()
    weighted = loss * weight
    if reduction == "none":
        return weighted
    if reduction == "sum":
        return weighted.sum()
    return mean_of(weighted.sum(), weight.sum() * (loss.numel() / max(weight.numel(), 1)))


def mean_of(weighted: Tensor, total: Tensor) -> Tensor:
    """Return a weighted sum divided by the sum of its weights, undivided where that is 0."""
    if total.device.type != "cpu" or total.requires_grad or torch.compiler.is_compiling():
        return weighted / torch.where(total > 0, total, 1)
    number = total.item()  # one operation instead of three
    return weighted / (number if number > 0 else 1)
