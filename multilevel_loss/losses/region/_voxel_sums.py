"""The sums over voxels that region losses are made of, in one pass over the logits and one back."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from multilevel_loss._targets import FEW, Prepared
from multilevel_loss.losses.region import _voxel_sums_torch
from multilevel_loss.losses.region._voxel_sums_torch import farthest, whole_sums


class VoxelSums(NamedTuple):
    """Sums over the voxels, each (B, C), of p and v the probability and membership of a class, ω a voxel's weight.

    Those that were not asked for are None.
    """

    overlap: Tensor
    """Σ ω·p·v."""
    predicted: Tensor
    """Σ ω·p (or Σ ω·p²)."""
    positive: Tensor | None
    """Σ ω·v·(1−p)^γ·(−log p), the focal cross entropy of the voxels of the class."""
    negative: Tensor | None
    """Σ ω·(1−v)·p^γ·(−log(1−p)), that of the others; None for softmax, whose classes compete in `positive`."""
    above: Tensor | None
    """Σ ω·p·max(Φ, 0), Φ a field."""
    below: Tensor | None
    """Σ ω·p·min(Φ, 0)."""
    errors: Tensor | None
    """Σ ω·Φ·(p−v)²."""
    truth: Tensor
    """Σ ω·v (or Σ ω·v²); this and the following are constants."""
    members: Tensor
    """Σ ω·v."""
    voxels: Tensor
    """Σ ω."""
    highest: Tensor | None
    """The greatest Φ, 1 where none is above 0."""
    deepest: Tensor | None
    """The greatest −Φ, likewise."""


def voxel_sums(
    prepared: Prepared,
    *,
    squared: bool = False,
    gamma: float | None = None,
    weight: Tensor | None = None,
    field: Tensor | None = None,
    errors: bool = False,
    make_field: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> VoxelSums:
    """Return the sums over the voxels of each sample; without `weight` they stay with `prepared` for other losses.

    Args:
        prepared: the prediction and its target.
        squared: sum the squares of p and v.
        gamma: γ ≥ 0 of the cross entropies, 0 for the plain one; None leaves them out.
        weight: ω (B, 1, *spatial), at least 0; None for 1. A masked voxel has none in any case.
        field: Φ (B, C, *spatial), a constant of the dtype of the logits.
        errors: sum what Φ makes of the squared errors, not of p on both sides of it.
        make_field: makes the same anew of the target and the logits of `prepared`, and so allows that the gradient
            takes its place.
    """
    if weight is None and field is None:
        for (of_squares, focus), known in prepared.sums.items():
            if of_squares == squared and gamma in (None, focus):
                return cast(VoxelSums, known)
    shared = weight is None
    logits, options = prepared.logits, (prepared.mode == "multiclass", squared, gamma, errors)
    if prepared.mask is not None:
        weight = prepared.counts() if weight is None else weight * prepared.counts()
    overlaps_alone = gamma is None and field is None  # the fewest operations
    if logits.numel() < (2 * FEW if overlaps_alone else FEW) or torch.compiler.is_compiling():
        flat = _flat(logits, prepared.truth, weight, field)
        result = VoxelSums(*(*whole_sums(*(*flat, *options)), *farthest(None if errors else flat[-1])))
    else:
        keep = make_field is None and torch.is_grad_enabled() and logits.requires_grad
        inputs = logits, prepared.truth, weight, field, make_field, keep
        *sums, constants = _FusedSums.apply(*inputs, *options)  # type: ignore[no-untyped-call]
        result = VoxelSums(*sums, *constants)
    if shared:
        prepared.sums[squared, gamma] = result
    return result


_DIFFERENTIABLE = VoxelSums._fields.index("truth")
_DISPOSABLE = "_is_disposable"


def is_disposable(gradient: Tensor) -> bool:
    """Whether a gradient is as the sums made it, contiguous and held by nothing else, and may be added to in place."""
    return getattr(gradient, _DISPOSABLE, False)


class _FusedSums(torch.autograd.Function):
    """The sums of logits (B, C, *spatial) in the order of VoxelSums, the constants in a tuple.

    Of the size of the logits one thing is kept at most, whose place the gradient then takes: the field where it can be
    made anew, or else, on a CPU, the activation.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        truth: Tensor,
        weight: Tensor | None,
        field: Tensor | None,
        make_field: Callable[[Tensor, Tensor], Tensor] | None,
        keep: bool,
        *options: bool | float | None,
    ) -> tuple[Tensor | tuple[Tensor | None, ...] | None, ...]:
        ctx.options = options
        ctx.make_field = make_field
        ctx.own_field = None if make_field is None else field
        ctx.save_for_backward(logits, truth, weight, field if make_field is None else None)
        ctx.set_materialize_grads(False)
        sums, ctx.kept = _kernels(logits).sums(*_flat(logits, truth, weight, field), *options, keep)
        return *sums[:_DIFFERENTIABLE], sums[_DIFFERENTIABLE:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *by_sums: Tensor | None) -> tuple[Tensor | None, ...]:
        logits, truth, weight, field = ctx.saved_tensors
        kept, own_field = ctx.kept, ctx.own_field
        ctx.kept = ctx.own_field = None  # a second call starts from the logits and the truth
        if ctx.make_field is not None:
            field = own_field = ctx.make_field(truth, logits) if own_field is None else own_field
        flat, (place,) = _flat(truth, weight, field), _flat(own_field)
        by = by_sums[:_DIFFERENTIABLE]
        gradient = _kernels(logits).gradient(logits, *flat, *ctx.options, by, kept, place)
        gradient = gradient.view(logits.shape)
        setattr(gradient, _DISPOSABLE, True)
        return gradient, *[None] * (5 + len(ctx.options))


def _flat(*tensors: Tensor | None) -> list[Any]:
    """Return tensors (B, C, *spatial) as (B, C, N)."""
    return [None if tensor is None else tensor.flatten(2) for tensor in tensors]


def _kernels(logits: Tensor) -> ModuleType:
    """Return the module of `sums` and `gradient` for logits like these."""
    if logits.device.type != "cpu" or logits.dtype != torch.float32 or logits.shape[1] > 255:
        return _voxel_sums_torch
    from multilevel_loss.losses.region import _voxel_sums_cpu  # here, so that importing the package spares numba

    return _voxel_sums_cpu
