"""One image with its organ mask, as every reader returns it, and what readers do to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Case:
    """One volume, or one 2-D image as a volume of a single slice, with the mask of the organ.

    Args:
        name: unique in its data set; file names, tables and pictures show it.
        patient: cases of one patient never fall on two sides of a split.
        image: (D, H, W), float32, intensities in [0, 1].
        label: (D, H, W), bool, True inside the organ.
        spacing: distance between neighbouring voxels along D, H, W in mm (in pixels where the file has lost it).

    Raises:
        ValueError: shapes that differ, a dtype or an intensity other than stated, a spacing that is not positive.
    """

    name: str
    patient: str
    image: NDArray[np.float32]
    label: NDArray[np.bool_]
    spacing: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Check shapes, dtypes, intensities and spacing."""
        if self.image.shape != self.label.shape or self.image.ndim != 3 or self.image.size == 0:
            raise ValueError(
                f"{self.name}: expected `image` and `label` to have one shape (D, H, W), "
                f"got {self.image.shape} and {self.label.shape}"
            )
        if self.image.dtype != np.float32 or self.label.dtype != np.bool_:
            raise ValueError(
                f"{self.name}: expected `image` to be float32 and `label` bool, "
                f"got {self.image.dtype} and {self.label.dtype}"
            )
        if not (self.image.min() >= 0 and self.image.max() <= 1):
            raise ValueError(
                f"{self.name}: expected `image` to lie in [0, 1], got {self.image.min()} to {self.image.max()}"
            )
        if len(self.spacing) != 3 or not all(math.isfinite(step) and step > 0 for step in self.spacing):
            raise ValueError(
                f"{self.name}: expected `spacing` to have 3 positive values (D, H, W), got {self.spacing!r}"
            )


def resize_slices(case: Case, size: int) -> Case:
    """Return `case` with every slice resized so that its longer side is `size` pixels; the slices stay as many.

    The image is averaged over the area a new pixel covers; a new pixel belongs to the organ where at least half of
    that area does. The spacing grows by the same factor, so distances keep their unit.

    Raises:
        ValueError: `size` is not positive.
    """
    if size < 1:
        raise ValueError(f"expected `size` to be a positive number of pixels, got {size}")
    _, height, width = case.image.shape
    scale = size / max(height, width)
    if scale == 1:
        return case
    shape = max(1, round(height * scale)), max(1, round(width * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR

    def resize(volume: NDArray[np.float32]) -> NDArray[np.float32]:
        slices = [cv2.resize(plane, shape[::-1], interpolation=interpolation) for plane in volume]
        return np.stack(slices).astype(np.float32, copy=False)

    spacing = (case.spacing[0], case.spacing[1] * height / shape[0], case.spacing[2] * width / shape[1])
    label = resize(case.label.astype(np.float32)) >= 0.5
    return Case(case.name, case.patient, resize(case.image).clip(0, 1), label, spacing)


def scale_intensities(volume: NDArray[np.generic], window: tuple[float, float] | None) -> NDArray[np.float32]:
    """Clip `volume` to `window` = (lo, hi) and scale it to [0, 1]; None is its own 0.5th and 99.5th percentile.

    Raises:
        ValueError: hi is not greater than lo, or the volume holds NaN.
    """
    values = volume.astype(np.float32)
    lo, hi = window if window is not None else (float(edge) for edge in np.percentile(values, (0.5, 99.5)))
    if not hi > lo:
        raise ValueError(f"expected `window` to be (lo, hi) with hi greater than lo, got ({lo:g}, {hi:g})")
    return np.asarray((values.clip(lo, hi) - lo) / (hi - lo), dtype=np.float32)
