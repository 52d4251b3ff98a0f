"""Iterative testing of a volume: Algorithm 1 over the views, fused in every round."""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from multilevel_loss._checks import check_choice
from reference.data import neighbor_slices
from reference.models import Box, CoarseToFine, bounding_box, crop
from reference.models.deeplab import upsample

Vote = Literal["mean", "majority"]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A volume's segmentation and how it came about.

    Attributes:
        mask: (D, H, W), bool, True inside the organ.
        probability: (D, H, W), float32 in [0, 1], the mean of the views in the last round.
        rdsc: relative DSC of each round's mask with the one before, in [0, 1].
        iterations: the first round, counted from 1, whose relative DSC reached `tol`; None if none did.
        seconds: wall-clock time of it all.
    """

    mask: NDArray[np.bool_]
    probability: NDArray[np.float32]
    rdsc: list[float]
    iterations: int | None
    seconds: float


@torch.inference_mode()
def segment(
    models: Mapping[int, CoarseToFine],
    image: NDArray[np.float32] | Tensor,
    *,
    tmax: int = 10,
    tol: float = 0.99,
    vote: Vote = "mean",
    batch_size: int = 8,
    observe: Callable[[int, NDArray[np.bool_]], None] | None = None,
) -> Segmentation:
    """Segment a volume coarsely, then finely in rounds, each cropped and attended to by the one before.

    The fused segmentation of a round gives the boxes and the saliency of all views in the next. Overlapping units
    are averaged over those that show a slice; a unit without organ in its three slices is left out.

    Args:
        models: the trained model of each view, by the axis of (D, H, W) that it cuts; put into eval mode. All on one
            device. Of an image of one slice (D = 1) only axis 0 is cut.
        image: (D, H, W) in [0, 1].
        tmax: rounds at most.
        tol: relative DSC at which to stop.
        vote: "mean" keeps voxels of mean probability ≥ 0.5 over the views, "majority" those that more than half
            of the views keep. Saliency takes the mean either way.
        batch_size: units at most that pass a network together; those whose crops differ in size never do.
        observe: called with the round, 0 for the coarse one, and its mask.

    Returns:
        The last round's mask and probability, and the relative DSC of every round.

    Raises:
        ValueError: no model, an axis other than 0, 1, 2, an image that is not a volume.

    Warns:
        UserWarning: a round finds no organ; the prediction is empty.

    Note:
        From round 1 on, 6-connected components under half the volume of the largest are dropped from the mask, not
        from the probability.

    Source:
        Algorithm 1, whose loop is meant as: do … until RDSC ≥ 0.99 or t = 10.
    """
    start = time.perf_counter()
    check_choice("vote", vote, get_args(Vote))
    volume = torch.as_tensor(image, dtype=torch.float32)
    if volume.ndim != 3 or volume.numel() == 0:
        raise ValueError(f"expected `image` to be a volume (D, H, W), got shape {tuple(volume.shape)}")
    used = {axis: model.eval() for axis, model in models.items() if axis == 0 or len(volume) > 1}
    if not used or not used.keys() <= {0, 1, 2}:
        raise ValueError(f"expected `models` to hold a model of axis 0, 1 or 2 (0 when D = 1), got axes {list(models)}")
    volume = volume.to(next(next(iter(used.values())).parameters()).device)

    views = [_coarse_view(model, volume, axis, batch_size) for axis, model in used.items()]
    probability, mask = _fuse(views, vote)
    rdsc: list[float] = []
    iterations = None
    for number in range(tmax + 1):
        if number > 0:
            views = [_fine_view(model, volume, axis, probability, mask, batch_size) for axis, model in used.items()]
            probability, voted = _fuse(views, vote)
            refined = _drop_small_components(voted)
            rdsc.append(relative_dsc(mask, refined))
            mask = refined
        if observe is not None:
            observe(number, mask.numpy(force=True))
        if not mask.any():
            warnings.warn(f"round {number} found no organ: the prediction is empty", stacklevel=2)
            break
        if rdsc and rdsc[-1] >= tol:
            iterations = number
            break
    return Segmentation(
        mask.numpy(force=True), probability.numpy(force=True), rdsc, iterations, time.perf_counter() - start
    )


def relative_dsc(before: Tensor, after: Tensor) -> float:
    """Return the DSC of two masks, of which one is not empty."""
    return 2 * int((before & after).sum()) / (int(before.sum()) + int(after.sum()))


class _SliceMean:
    """Mean over the units that show a slice, whole or cropped; 0 where none does."""

    def __init__(self, slices: Tensor) -> None:
        self.total = torch.zeros_like(slices)
        self.units = slices.new_zeros(len(slices), 1, 1)

    def add(self, center: int, probability: Tensor, box: Box) -> None:
        """Add the unit of slices center−1, center, center+1, (3, h, w) in `box`; slices beyond the ends are none."""
        for j, part in zip(range(center - 1, center + 2), probability, strict=True):
            if 0 <= j < len(self.total):
                crop(self.total[j], box).add_(part)
                self.units[j] += 1

    def mean(self) -> Tensor:
        return self.total / self.units.clamp_min(1)


def _unit_slices(depth: int) -> Tensor:
    return torch.from_numpy(np.stack([neighbor_slices(j, depth) for j in range(depth)]))


def _coarse_view(model: CoarseToFine, volume: Tensor, axis: int, batch_size: int) -> Tensor:
    """Return the coarse probability (D, H, W) of one view."""
    slices = volume.movedim(axis, 0)
    whole = Box(0, slices.shape[1], 0, slices.shape[2])
    mean = _SliceMean(slices)
    for centers in torch.split(torch.arange(len(slices)), batch_size):
        logits = model.coarse_logits(slices[_unit_slices(len(slices))[centers]])
        for center, probability in zip(centers.tolist(), logits.sigmoid(), strict=True):
            mean.add(center, probability, whole)
    return mean.mean().movedim(0, axis)


def _fine_view(
    model: CoarseToFine, volume: Tensor, axis: int, probability: Tensor, mask: Tensor, batch_size: int
) -> Tensor:
    """Return the fine probability (D, H, W) of one view, 0 outside the boxes around `mask`."""
    slices, saliency, organ = (field.movedim(axis, 0) for field in (volume, probability, mask))
    units = _unit_slices(len(slices))
    boxes = {j: box for j, unit in enumerate(units) if (box := bounding_box(organ[unit])) is not None}
    alike = defaultdict(list)
    for j, box in boxes.items():
        alike[box.size].append(j)
    mean = _SliceMean(slices)
    for size, members in alike.items():
        for centers in torch.split(torch.tensor(members), batch_size):
            seen = model.fine_input(slices[units[centers]], saliency[units[centers]])
            crops = [crop(unit, boxes[j]) for j, unit in zip(centers.tolist(), seen, strict=True)]
            logits = upsample(model.fine(torch.stack(crops)), size)
            for j, part in zip(centers.tolist(), logits.sigmoid(), strict=True):
                mean.add(j, part, boxes[j])
    return mean.mean().movedim(0, axis)


def _fuse(views: list[Tensor], vote: Vote) -> tuple[Tensor, Tensor]:
    """Return the mean probability of the views and the mask they vote for."""
    probability = torch.stack(views).mean(0)
    if vote == "mean":
        return probability, probability >= 0.5
    return probability, torch.stack([view >= 0.5 for view in views]).float().mean(0) > 0.5


def _drop_small_components(mask: Tensor) -> Tensor:
    """Return `mask` without the 6-connected components smaller than half of the largest."""
    components, count = ndimage.label(mask.numpy(force=True))
    if count == 0:
        return mask
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    kept = 2 * sizes >= sizes.max()
    kept[0] = False
    return torch.from_numpy(kept[components]).to(mask.device)
