"""Whether a mask lies on its organ, or would if it were flipped."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FLIPS = tuple(itertools.chain.from_iterable(itertools.combinations(range(3), count) for count in range(4)))
LEAST_CORRELATION, LEAST_LEAD = 0.15, 0.05
SHELL = 3


def find_flip(image: NDArray[np.number], mask: NDArray[np.bool_], window: tuple[float, float]) -> tuple[int, ...]:
    """Return the axes along which `mask` has to be flipped to lie on its organ.

    Args:
        image: (D, H, W).
        mask: (D, H, W), the labels, flipped in any way.
        window: intensities outside are clipped.

    Raises:
        ValueError: the mask is empty, no flip makes it lie on an organ, or two do about as well.
    """
    correlations = flip_correlations(image, mask, window)
    ranked = sorted(correlations, key=lambda flip: -correlations[flip])
    best = ranked[0]
    # Where two flips leave the same mask, either will do.
    rivals = [correlations[flip] for flip in ranked[1:] if not np.array_equal(np.flip(mask, flip), np.flip(mask, best))]
    if correlations[best] < LEAST_CORRELATION or (rivals and correlations[best] - rivals[0] < LEAST_LEAD):
        found = ", ".join(f"{name_flip(flip)} {correlations[flip]:.2f}" for flip in ranked)
        raise ValueError(
            f"expected the labels to meet the organ under one flip of their axes, but the correlations are {found}"
        )
    return best


def flip_correlations(
    image: NDArray[np.number], mask: NDArray[np.bool_], window: tuple[float, float]
) -> dict[tuple[int, ...], float]:
    """Return how well `mask` lies on an organ when it is flipped along none, some or all of its axes.

    An organ is of one tissue: where the mask lies right, the intensities in it are alike, and those of a thin shell
    around it, fat, vessels or bowel, are often far from them. So nearness to the median of the mask correlates with
    being in it; where the mask lies wrong, by chance alone.

    Returns:
        Flipped axes → correlation over the mask and its shell, in [-1, 1]; 0 where all intensities are alike.

    Raises:
        ValueError: the mask is empty.
    """
    if not mask.any():
        raise ValueError("expected labels of the organ, found none")
    (box,) = ndimage.find_objects(mask.view(np.uint8))
    padded = tuple(slice(max(0, side.start - SHELL), side.stop + SHELL) for side in box)
    inside = mask[padded]
    region = ndimage.binary_dilation(inside, iterations=SHELL)
    correlations: dict[tuple[int, ...], float] = {}
    for flip in FLIPS:
        # Flipping the image instead leaves the mask and its shell where they are.
        values = np.flip(image, flip)[padded][region].clip(*window)
        deviation = np.abs(values - np.median(values[inside[region]]))
        varies = np.ptp(deviation) > 0 and not inside[region].all()
        correlations[flip] = -float(np.corrcoef(deviation, inside[region])[0, 1]) if varies else 0.0
    return correlations


def name_flip(flip: tuple[int, ...]) -> str:
    """Return the flipped axes as letters, x the fastest, or "none"."""
    return "".join("zyx"[axis] for axis in flip) or "none"
