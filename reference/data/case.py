"""One image with its organ mask, as every reader returns it, and what readers do to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from reference.data.scan import Geometry

Index = int | slice | EllipsisType | NDArray[np.intp] | tuple[int | slice | NDArray[np.intp], ...]


@dataclass(frozen=True, eq=False)
class Case:
    """One volume, or one 2-D image as a volume of a single slice, with the mask of the organ.

    Args:
        name: unique in its data set; file names, tables and pictures show it.
        patient: cases of one patient never fall on two sides of a split.
        image: (D, H, W), integer or floating, in the unit of the file; it may be memory-mapped.
        label: (D, H, W), bool, True inside the organ; likewise.
        spacing: distance between neighbouring voxels along D, H, W in mm (in pixels where the file has lost it).
        window: (lo, hi), the values of `image` that `intensities` makes 0 and 1.
        geometry: of the file the image was read from; None where it has none, or the image was resized.

    Raises:
        ValueError: shapes that differ, a dtype other than stated, a spacing that is not positive, hi not above lo.
    """

    name: str
    patient: str
    image: NDArray[np.number]
    label: NDArray[np.bool_]
    spacing: tuple[float, float, float]
    window: tuple[float, float] = (0.0, 1.0)
    geometry: Geometry | None = None

    def __post_init__(self) -> None:
        """Check shapes, dtypes, spacing and window; the voxels are not read."""
        if self.image.shape != self.label.shape or self.image.ndim != 3 or self.image.size == 0:
            raise ValueError(
                f"{self.name}: expected `image` and `label` to have one shape (D, H, W), "
                f"got {self.image.shape} and {self.label.shape}"
            )
        if self.image.dtype.kind not in "iuf" or self.label.dtype != np.bool_:
            raise ValueError(
                f"{self.name}: expected `image` to be integer or floating and `label` bool, "
                f"got {self.image.dtype} and {self.label.dtype}"
            )
        if len(self.spacing) != 3 or not all(math.isfinite(step) and step > 0 for step in self.spacing):
            raise ValueError(
                f"{self.name}: expected `spacing` to have 3 positive values (D, H, W), got {self.spacing!r}"
            )
        try:
            _check_window(self.window)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error

    def intensities(self, index: Index = ...) -> NDArray[np.float32]:
        """Return `image[index]`, clipped to `window` and scaled to [0, 1]; only that part is read from disk."""
        return scale_intensities(self.image[index], self.window)

    def __getstate__(self) -> dict[str, Any]:
        """Let a data-loader worker that is not forked map the files again, instead of sending it their content."""
        return {name: _Mapped(value) if _maps_a_file(value) else value for name, value in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Undo `__getstate__`."""
        for name, value in state.items():
            object.__setattr__(self, name, value.open() if isinstance(value, _Mapped) else value)


class _Mapped:
    def __init__(self, array: np.memmap[Any, Any]) -> None:
        self.path = Path(str(array.filename))

    def open(self) -> NDArray[Any]:
        array: NDArray[Any] = np.load(self.path, mmap_mode="r")
        return array


def _maps_a_file(value: object) -> bool:
    """Tell a memory-mapped `.npy` file from an array in memory and from a part of a file."""
    return isinstance(value, np.memmap) and not isinstance(value.base, np.ndarray)


def resize_slices(case: Case, size: int) -> Case:
    """Return `case` with every slice resized so that its longer side is `size` pixels; the slices stay as many.

    The image, float32 then, is averaged over the area a new pixel covers; a new pixel belongs to the organ where at
    least half of that area does. The spacing grows by the same factor, so distances keep their unit.

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

    def resize(volume: NDArray[np.generic]) -> NDArray[np.float32]:
        slices = [cv2.resize(plane.astype(np.float32), shape[::-1], interpolation=interpolation) for plane in volume]
        return np.stack(slices).astype(np.float32, copy=False)

    spacing = (case.spacing[0], case.spacing[1] * height / shape[0], case.spacing[2] * width / shape[1])
    return Case(case.name, case.patient, resize(case.image), resize(case.label) >= 0.5, spacing, case.window)


def scale_intensities(volume: NDArray[np.number], window: tuple[float, float]) -> NDArray[np.float32]:
    """Clip `volume` to `window` = (lo, hi) and scale it to [0, 1].

    Raises:
        ValueError: hi is not greater than lo.
    """
    _check_window(window)
    lo, hi = window
    scaled = np.array(volume, dtype=np.float32)
    np.clip(scaled, lo, hi, out=scaled)
    scaled -= np.float32(lo)
    scaled /= np.float32(hi - lo)
    return scaled


def percentile_window(volume: NDArray[np.number]) -> tuple[float, float]:
    """Return the 0.5th and 99.5th percentile of `volume`: a window for images without a fixed unit, such as MR.

    Raises:
        ValueError: the two are equal, or the volume holds NaN.
    """
    lo, hi = (float(edge) for edge in np.percentile(volume, (0.5, 99.5)))
    _check_window((lo, hi))
    return lo, hi


def _check_window(window: tuple[float, float]) -> None:
    if len(window) != 2 or not -math.inf < window[0] < window[1] < math.inf:
        raise ValueError(f"expected `window` to be (lo, hi) with hi greater than lo, got {tuple(window)!r}")
