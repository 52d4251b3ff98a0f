"""Iterative testing of a volume: Algorithm 1 over the views, fused in every round."""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from multilevel_loss._checks import check_choice
from reference.config import Precision
from reference.data import neighbor_slices
from reference.models import Box, CoarseToFine, bounding_box, crop
from reference.models.crop import MIN_SIDE

Vote = Literal["mean", "majority"]

AUTOCAST: dict[Precision, torch.dtype | None] = {
    "32-true": None,
    "16-mixed": torch.float16,
    "bf16-mixed": torch.bfloat16,
}
SALIENCY_REACH = 3
"""Pixels that the saliency of a pixel depends on to each side: a 5×5 and a 3×3 convolution."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A volume's segmentation and how it came about.

    Attributes:
        mask: (D, H, W), bool, True inside the organ.
        probability: (D, H, W), float32 in [0, 1], the mean of the views in the last round.
        rdsc: relative DSC of each round's mask with the one before, in [0, 1].
        iterations: the first round, counted from 1, whose relative DSC reached `tol`; None if none did.
        crops: units that passed the fine model in each round, of all views; those whose input was that of the round
            before kept their result.
        seconds_per_round: wall-clock time of each, first that of the coarse one, without that of `observe`.
    """

    mask: NDArray[np.bool_]
    probability: NDArray[np.float32]
    rdsc: list[float]
    iterations: int | None
    crops: list[int]
    seconds_per_round: list[float]

    @property
    def seconds(self) -> float:
        """Wall-clock time of it all."""
        return sum(self.seconds_per_round)


@torch.inference_mode()
def segment(
    models: Mapping[int, CoarseToFine],
    image: NDArray[np.float32] | Tensor,
    *,
    tmax: int = 10,
    tol: float = 0.99,
    vote: Vote = "mean",
    organ: NDArray[np.bool_] | None = None,
    precision: Precision = "32-true",
    batch_size: int | None = None,
    observe: Callable[[int, NDArray[np.bool_]], None] | None = None,
) -> Segmentation:
    """Segment a volume coarsely, then finely in rounds, each cropped and attended to by the one before.

    The fused segmentation of a round gives the boxes and the saliency of all views in the next. Overlapping units
    are averaged over those that show a slice; a unit without organ in its three slices is left out. A unit whose box
    and saliency are those of the round before keeps its result.

    Args:
        models: the trained model of each view, by the axis of (D, H, W) that it cuts; put into eval mode. All on one
            device. Of an image of one slice (D = 1) only axis 0 is cut.
        image: (D, H, W) in [0, 1].
        tmax: rounds at most.
        tol: relative DSC at which to stop.
        vote: "mean" keeps voxels of mean probability ≥ 0.5 over the views, "majority" those that more than half
            of the views keep. Saliency takes the mean either way.
        organ: (D, H, W), True inside the organ, if the label shall choose the boxes ("with label" in Table 3): every
            round crops by this. The saliency is still that of the round before, at first the coarse one.
        precision: "32-true", or as lower precision is named by Fabric.
        batch_size: units at most that pass a network together; those whose crops differ in size never do. None is 1
            on a CPU, where more gain nothing, else 8.
        observe: called with the round, 0 for the coarse one, and its mask.

    Returns:
        The last round's mask and probability, and the relative DSC of every round.

    Raises:
        ValueError: no model, an axis other than 0, 1, 2, an image that is not a volume or holds NaN or infinity, that
            is too small, an `organ` of another shape.

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
    check_choice("precision", precision, get_args(Precision))
    volume = torch.as_tensor(image, dtype=torch.float32)
    used = {axis: model.eval() for axis, model in models.items() if axis == 0 or len(volume) > 1}
    _check(volume, organ, models, used)
    device = next(next(iter(used.values())).parameters()).device
    volume = volume.to(device)
    batch_size = batch_size or (1 if device.type == "cpu" else 8)
    views = [_View(model, volume, axis, batch_size) for axis, model in used.items()]
    boxes = None if organ is None else [view.boxes(torch.from_numpy(np.array(organ))) for view in views]

    with torch.autocast(device.type, AUTOCAST[precision], enabled=AUTOCAST[precision] is not None):
        probability, mask = _fuse((view.coarse() for view in views), vote)
        before: Tensor | None = None
        rdsc: list[float] = []
        crops: list[int] = []
        seconds: list[float] = []
        iterations = None
        for number in range(tmax + 1):
            if number > 0:
                cuts = boxes or [view.boxes(mask) for view in views]
                fine = (view.fine(probability, before, cut) for view, cut in zip(views, cuts, strict=True))
                after, voted = _fuse(fine, vote)
                probability, before = after, probability
                refined = _drop_small_components(voted)
                crops.append(sum(view.computed for view in views))
                rdsc.append(relative_dsc(mask, refined))
                mask = refined
            seconds.append(time.perf_counter() - start)
            if observe is not None:
                observe(number, mask.numpy())
            start = time.perf_counter()
            if rdsc and rdsc[-1] >= tol:
                iterations = number
                break
            if organ is None and not mask.any():
                break
    if not mask.any():
        warnings.warn(f"round {number} found no organ: the prediction is empty", stacklevel=2)
    return Segmentation(mask.numpy(), probability.numpy(force=True), rdsc, iterations, crops, seconds)


def relative_dsc(before: Tensor, after: Tensor) -> float:
    """Return the DSC of two masks, 1 where both are empty."""
    total = int(before.sum()) + int(after.sum())
    return 2 * int((before & after).sum()) / total if total else 1.0


def _check(
    volume: Tensor,
    organ: NDArray[np.bool_] | None,
    models: Mapping[int, CoarseToFine],
    used: Mapping[int, CoarseToFine],
) -> None:
    if volume.ndim != 3 or volume.numel() == 0:
        raise ValueError(f"expected `image` to be a volume (D, H, W), got shape {tuple(volume.shape)}")
    if not volume.isfinite().all():
        raise ValueError("expected `image` to be finite, got NaN or infinity")
    if organ is not None and tuple(organ.shape) != tuple(volume.shape):
        raise ValueError(f"expected `organ` to have the image's shape {tuple(volume.shape)}, got {tuple(organ.shape)}")
    if not used or not used.keys() <= {0, 1, 2}:
        raise ValueError(f"expected `models` to hold a model of axis 0, 1 or 2 (0 when D = 1), got axes {list(models)}")
    for axis in used:
        side = max(length for other, length in enumerate(volume.shape) if other != axis)
        if side < MIN_SIDE:
            raise ValueError(
                f"expected the slices along axis {axis} to have a side of at least {MIN_SIDE} pixels, "
                f"got a volume of shape {tuple(volume.shape)}"
            )


class _View:
    """The units of one view, and what the fine model said of them in the last round.

    Attributes:
        computed: number of units that passed the fine model in the last round.
    """

    def __init__(self, model: CoarseToFine, volume: Tensor, axis: int, batch_size: int) -> None:
        self.model, self.axis, self.batch_size = model, axis, batch_size
        self.slices = volume.movedim(axis, 0)
        depth = len(self.slices)
        self.units = torch.from_numpy(np.stack([neighbor_slices(j, depth) for j in range(depth)]))
        self.answers: dict[int, tuple[Box, Tensor]] = {}
        self.computed = 0

    def boxes(self, mask: Tensor) -> dict[int, Box]:
        """Return the box of every unit that shows part of `mask` (D, H, W), which is on the CPU."""
        slices = mask.movedim(self.axis, 0)
        rows, columns = slices.any(2), slices.any(1)
        # The product of its two projections has the box of the mask, and is quicker to come by.
        projections = ((rows[unit].any(0), columns[unit].any(0)) for unit in self.units)
        boxes = (bounding_box(row[:, None] & column) for row, column in projections)
        return {j: box for j, box in enumerate(boxes) if box is not None}

    def coarse(self) -> Tensor:
        """Return the coarse probability (D, H, W)."""
        whole = Box(0, self.slices.shape[1], 0, self.slices.shape[2])
        mean = _SliceMean(self.slices)
        for centers in torch.split(torch.arange(len(self.units)), self.batch_size):
            logits = self.model.coarse_logits(self.slices[self.units[centers]])
            for center, probability in zip(centers.tolist(), logits.float().sigmoid(), strict=True):
                mean.add(center, probability, whole)
        return mean.mean().movedim(0, self.axis)

    def fine(self, probability: Tensor, before: Tensor | None, boxes: Mapping[int, Box]) -> Tensor:
        """Return the fine probability (D, H, W), 0 outside of `boxes`.

        Args:
            probability: (D, H, W), what gives the saliency.
            before: what gave it in the round before; None in the first.
            boxes: of the units to look at.
        """
        saliency = probability.movedim(self.axis, 0)
        last = None if before is None else before.movedim(self.axis, 0)
        kept = {
            j: self.answers[j]
            for j, box in boxes.items()
            if last is not None
            and j in self.answers
            and self.answers[j][0] == box
            and torch.equal(self._unit(saliency, j, self._reach(box)), self._unit(last, j, self._reach(box)))
        }
        self.answers = kept | self._ask(saliency, {j: box for j, box in boxes.items() if j not in kept})
        self.computed = len(boxes) - len(kept)
        mean = _SliceMean(self.slices)
        for j in boxes:  # In one order, however they came about: the sum depends on it in its last bits.
            mean.add(j, self.answers[j][1], self.answers[j][0])
        return mean.mean().movedim(0, self.axis)

    def _ask(self, saliency: Tensor, boxes: Mapping[int, Box]) -> dict[int, tuple[Box, Tensor]]:
        """Return what the fine model says inside the box of each unit."""
        alike = defaultdict(list)
        for j, box in boxes.items():
            reach = self._reach(box)
            inside = Box(box.top - reach.top, box.bottom - reach.top, box.left - reach.left, box.right - reach.left)
            alike[reach.size, inside].append(j)
        answers = {}
        for (_, inside), members in alike.items():
            for start in range(0, len(members), self.batch_size):
                batch = members[start : start + self.batch_size]
                image, probability = (
                    torch.stack([self._unit(field, j, self._reach(boxes[j])) for j in batch])
                    for field in (self.slices, saliency)
                )
                logits = self.model.fine_logits(crop(self.model.fine_input(image, probability), inside))
                for j, part in zip(batch, logits.float().sigmoid(), strict=True):
                    answers[j] = boxes[j], part
        return answers

    def _unit(self, slices: Tensor, center: int, box: Box) -> Tensor:
        return crop(slices, box)[self.units[center]]

    def _reach(self, box: Box) -> Box:
        """Return what the saliency inside `box` depends on."""
        _, height, width = self.slices.shape
        return Box(
            max(box.top - SALIENCY_REACH, 0),
            min(box.bottom + SALIENCY_REACH, height),
            max(box.left - SALIENCY_REACH, 0),
            min(box.right + SALIENCY_REACH, width),
        )


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


def _fuse(views: Iterable[Tensor], vote: Vote) -> tuple[Tensor, Tensor]:
    """Return the mean probability of the views and, on the CPU, the mask they vote for; each view is needed once."""
    total, votes, number = torch.zeros(()), torch.zeros(()), 0
    for number, view in enumerate(views, start=1):
        total = view if number == 1 else total + view
        if vote == "majority":
            kept = (view >= 0.5).to(torch.uint8)
            votes = kept if number == 1 else votes + kept
    probability = total / number
    mask = probability >= 0.5 if vote == "mean" else 2 * votes > number
    return probability, mask.cpu()


def _drop_small_components(mask: Tensor) -> Tensor:
    """Return `mask` without the 6-connected components smaller than half of the largest."""
    if not mask.any():
        return mask
    around = tuple(
        slice(int(indices.min()), int(indices.max()) + 1)
        for axis in range(3)
        for indices in mask.any(tuple({0, 1, 2} - {axis})).nonzero(as_tuple=True)
    )
    components, _ = ndimage.label(mask[around].numpy())
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    kept = 2 * sizes >= sizes.max()
    kept[0] = False
    refined = torch.zeros_like(mask)
    refined[around] = torch.from_numpy(kept[components])
    return refined
