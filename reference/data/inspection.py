"""What is to be seen of a case before a week of training, and what is suspicious about it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from reference.data.case import Case
from reference.data.flips import flip_correlations, name_flip

SMALLEST_STEP, LARGEST_STEP, LARGEST_RATIO = 0.1, 10.0, 15.0
LARGEST_SHARE_OUTSIDE = 0.5
LEAST_CORRELATION, LARGEST_LEAD = 0.05, 0.1


@dataclass(frozen=True)
class Inspection:
    """Figures of one case.

    Attributes:
        name: of the case.
        shape: (D, H, W).
        spacing: mm along D, H, W.
        voxels: of the organ.
        milliliters: the organ's volume.
        lowest: intensity of the whole image, in its own unit.
        highest: likewise.
        warnings: what is suspicious, a sentence each.
    """

    name: str
    shape: tuple[int, ...]
    spacing: tuple[float, float, float]
    voxels: int
    milliliters: float
    lowest: float
    highest: float
    warnings: list[str]


def inspect_case(case: Case) -> Inspection:
    """Measure a case and look for what is suspicious: no organ, a label off its organ, an odd spacing."""
    voxels = int(np.count_nonzero(case.label))
    warnings = _spacing_warnings(case)
    warnings += _label_warnings(case) if voxels else ["the label is empty"]
    return Inspection(
        case.name,
        case.image.shape,
        case.spacing,
        voxels,
        voxels * prod(case.spacing) / 1000,
        float(case.image.min()),
        float(case.image.max()),
        warnings,
    )


def _spacing_warnings(case: Case) -> list[str]:
    """Look at the steps of a volume; single slices have often lost theirs."""
    if len(case.image) == 1:
        return []
    smallest, largest = min(case.spacing), max(case.spacing)
    if smallest < SMALLEST_STEP or largest > LARGEST_STEP or largest > LARGEST_RATIO * smallest:
        return [f"odd spacing: {smallest:.3g} to {largest:.3g} mm"]
    return []


def _label_warnings(case: Case) -> list[str]:
    warnings = []
    organ = case.intensities(np.nonzero(case.label))
    for side, share in (("below", np.mean(organ == 0)), ("above", np.mean(organ == 1))):
        if share > LARGEST_SHARE_OUTSIDE:
            warnings.append(f"{share:.0%} of the organ is {side} the window: is it on the body, and the window right?")
    correlations = flip_correlations(case.image, case.label, case.window)
    here = correlations[()]
    best = max(correlations, key=lambda flip: correlations[flip])
    if correlations[best] - here > LARGEST_LEAD:
        warnings.append(
            f"the label would meet an organ better if flipped along {name_flip(best)}: "
            f"correlation {correlations[best]:.2f}, here {here:.2f}"
        )
    elif here < LEAST_CORRELATION:
        warnings.append(f"the label does not stand out from what is around it: correlation {here:.2f}")
    return warnings
