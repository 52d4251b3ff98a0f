"""Deep supervision: one loss on predictions of several resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multilevel_loss._checks import Spacing, check_number, check_spacing


class DeepSupervision(nn.Module):
    r"""One loss on predictions of several resolutions, against one target of full resolution.

    .. math:: \sum_i w_i \, E(f_i, V_i)

    with V_i the target on the grid of prediction i: label maps and masks take the value at the centre of the coarser
    voxel, memberships and images the mean over it.

    Args:
        loss: E, any loss of this library, called as ``loss(input, target, ...)``.
        weights: w, one a prediction; by default each is half of the one before, and they sum to 1.

    Raises:
        ValueError: a weight is negative, or not finite.

    Note:
        A thin structure may fall between the centres of coarse voxels and vanish from a resized label map; class
        memberships keep their share of it.

    Example:
        >>> from multilevel_loss import DiceLoss
        >>> outputs = [torch.randn(1, 3, side, side) for side in (32, 16, 8)]
        >>> target = torch.randint(3, (1, 32, 32))
        >>> loss = DeepSupervision(DiceLoss())(outputs, target)
        >>> levels = [target, target[:, 1::2, 1::2], target[:, 2::4, 2::4]]
        >>> fine, middle, coarse = map(DiceLoss(), outputs, levels)
        >>> torch.allclose(loss, (4 * fine + 2 * middle + coarse) / 7)
        True

    Source:
        Lee et al., Deeply-supervised nets (AISTATS 2015); the weights are those of nnU-Net (Isensee et al., Nature
        Methods 2021).
    """

    def __init__(self, loss: nn.Module, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        for weight in weights or ():
            check_number("weights", weight, minimum=0)
        self.loss = loss
        self.weights = weights

    def forward(
        self,
        inputs: Sequence[Tensor],
        target: Tensor,
        *,
        spacing: Spacing | None = None,
        distance_map: Tensor | None = None,
        image: Tensor | None = None,
        mask: Tensor | None = None,
        **options: Any,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Return the loss.

        Args:
            inputs: predictions (B, C, *spatial_i), fine to coarse.
            target: label map (B, *spatial) or (B, 1, *spatial), any integer or bool dtype, or class memberships
                (B, C, *spatial), floating in [0, 1].
            spacing: mm of the voxels of `target`, as in the loss; those of coarser voxels follow.
            distance_map: signed distance map (B, C, *spatial) of `target`; in mm if `spacing` is given, else in voxels
                of `target`, and then also its values are rescaled.
            image: (B, K, *spatial).
            mask: (B, *spatial) or (B, 1, *spatial), nonzero where a voxel counts.
            options: any other option of the loss, given to it as it is.

        Returns:
            A float32 (float64 for float64 input) scalar; where the loss returns its terms as well, a pair of it and a
            dictionary of the terms, weighted alike.

        Raises:
            ValueError: there is not one weight a prediction, or `distance_map` is in voxels and the axes are not
                reduced alike.
        """
        weights = self._weights_of(len(inputs))
        results = []
        for prediction in inputs:
            batch, _, *size = prediction.shape
            factors = [old / new for old, new in zip(target.shape[-len(size) :], size, strict=True)]
            resized: dict[str, Any] = {}
            steps = check_spacing(spacing, batch, len(size), prediction.device)
            if steps is not None:
                resized["spacing"] = steps * torch.tensor(factors, dtype=steps.dtype, device=steps.device)
            if distance_map is not None:
                unit = 1.0 if steps is not None else _common(factors)
                resized["distance_map"] = _at_centers(distance_map, size) / unit
            if image is not None:
                resized["image"] = F.interpolate(image, size, mode="area")
            if mask is not None:
                resized["mask"] = _at_centers(mask, size)
            soft = target.is_floating_point()
            level = F.interpolate(target, size, mode="area") if soft else _at_centers(target, size)
            results.append(self.loss(prediction, level, **resized, **options))
        if isinstance(results[0], Tensor):
            return _weighted_sum(results, weights)
        totals, terms = zip(*results, strict=True)
        return _weighted_sum(totals, weights), {
            name: _weighted_sum([term[name] for term in terms], weights) for name in terms[0]
        }

    def _weights_of(self, levels: int) -> list[float]:
        if self.weights is None:
            return [2 ** (levels - 1 - level) / (2**levels - 1) for level in range(levels)]
        if len(self.weights) != levels:
            raise ValueError(f"expected `inputs` to hold one prediction a weight, {len(self.weights)}, got {levels}")
        return list(self.weights)


def _at_centers(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return x (..., *spatial) of any dtype, contiguous, at the centres of the voxels of another grid."""
    every = [slice(None)] * x.ndim
    for axis, new in enumerate(size, x.ndim - len(size)):
        old = x.shape[axis]
        if old % new == 0:
            every[axis] = slice(old // new // 2, None, old // new)
        else:
            position = (torch.arange(new, device=x.device) * 2 + 1) * old // (2 * new)
            x = x.index_select(axis, position)
    return x[tuple(every)].contiguous()


def _common(factors: Sequence[float]) -> float:
    """Return the one factor by which all axes are reduced, but for rounding of odd sides."""
    if len({round(factor) for factor in factors}) > 1:
        raise ValueError(
            f"expected `distance_map` in voxels only where all axes are reduced alike, got factors {tuple(factors)}: "
            "give it in mm, with `spacing`"
        )
    return sum(factors) / len(factors)


def _weighted_sum(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    return reduce(add, (weight * value for weight, value in zip(weights, values, strict=True)))
