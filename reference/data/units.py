"""The network's input: a slice with its two neighbours as three channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from reference.data.case import Case


class Unit(TypedDict):
    """Three neighbouring slices: image and label float32 (3, H, W), spacing float32 (2,) of H and W."""

    image: Tensor
    label: Tensor
    spacing: Tensor


class SliceUnits(Dataset[Unit]):
    """The organ-holding slices of `cases` along one axis, each with its two neighbours.

    Unit i is (slice j−1, slice j, slice j+1) as channels. At the first and last slice of a volume the missing
    neighbour is the centre slice itself, never a slice of another volume.

    Args:
        cases: volumes; only these decide which slices are kept, so give the training cases alone.
        axis: 0, 1 or 2: the axis of (D, H, W) that is cut into slices.
        keep: share, in (0, 1], of the organ-holding slices to keep, those with most organ pixels.

    Raises:
        ValueError: no case, no organ in any of them, an `axis` or a `keep` out of range.

    Source:
        §4.3.1 of Liu et al., as their predecessor RSTN (Yu et al., CVPR 2018) states it;
        there, the 2 % smallest slices are found over training and testing cases together.
    """

    def __init__(self, cases: Sequence[Case], axis: int = 0, keep: float = 0.98) -> None:
        """Choose the slices."""
        if not cases:
            raise ValueError("expected `cases` to hold at least one case, got none: the split is empty")
        if axis not in (0, 1, 2):
            raise ValueError(f"expected `axis` to be 0, 1 or 2, got {axis!r}")
        if not 0 < keep <= 1:
            raise ValueError(f"expected `keep` to be greater than 0 and at most 1, got {keep!r}")
        self.cases = tuple(cases)
        self.axis = axis
        pixels = {
            (number, int(j)): int(count)
            for number, case in enumerate(self.cases)
            for j, count in enumerate(np.moveaxis(case.label, axis, 0).sum(axis=(1, 2)))
            if count
        }
        if not pixels:
            raise ValueError(f"expected `cases` to show the organ somewhere, but all {len(cases)} labels are empty")
        kept = math.ceil(keep * len(pixels) - 1e-9)
        self.slices = sorted(sorted(pixels, key=lambda key: -pixels[key])[:kept])

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self.slices)

    def __getitem__(self, index: int) -> Unit:
        """Return one unit."""
        number, j = self.slices[index]
        case = self.cases[number]
        neighbors: tuple[slice | NDArray[np.intp], ...] = (
            *(slice(None),) * self.axis,
            neighbor_slices(j, case.image.shape[self.axis]),
        )
        image, label = (
            np.moveaxis(part, self.axis, 0) for part in (case.intensities(neighbors), case.label[neighbors])
        )
        spacing = [step for axis, step in enumerate(case.spacing) if axis != self.axis]
        return Unit(
            image=torch.from_numpy(np.ascontiguousarray(image)),
            label=torch.from_numpy(label.astype(np.float32, order="C")),
            spacing=torch.tensor(spacing, dtype=torch.float32),
        )


def neighbor_slices(j: int, depth: int) -> NDArray[np.intp]:
    """Return (j−1, j, j+1), with j in place of a neighbour outside 0 … depth−1."""
    return np.array([k if 0 <= k < depth else j for k in (j - 1, j, j + 1)])
