"""Volumes and label maps as pairs of files, laid out as the Medical Segmentation Decathlon does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reference.data.case import Case, percentile_window, resize_slices
from reference.data.pairs import Pair, find_pairs
from reference.data.scan import NIFTI_SUFFIXES, read_scan


def read_nifti_folder(
    folder: Path,
    *,
    window: tuple[float, float] | None,
    labels: Sequence[int] = (1,),
    size: int | None = None,
) -> list[Case]:
    """Read `folder/imagesTr/` and `folder/labelsTr/`; every volume is one patient.

    Args:
        folder: holds `imagesTr` and `labelsTr`.
        window: intensities (lo, hi) that become 0 and 1, in the unit of the files, e.g. (-100, 240) HU; those outside
            are clipped. None takes each volume's own 0.5th and 99.5th percentile (MR has no fixed unit).
        labels: the label values that together are the organ.
        size: pixels of a slice's longer side after resizing in plane; None keeps the volume as it is.

    Returns:
        The cases, sorted by name, as `read_pair` reads them.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: an image without labels or labels without image; what `read_pair` raises.
    """
    pairs = find_pairs(Path(folder) / "imagesTr", Path(folder) / "labelsTr", NIFTI_SUFFIXES)
    cases = (read_pair(pair, window=window, labels=labels) for pair in pairs)
    return [case if size is None else resize_slices(case, size) for case in cases]


def read_pair(
    pair: Pair, *, window: tuple[float, float] | None, labels: Sequence[int] = (1,), channel: int | None = None
) -> Case:
    """Read a volume and its label map, in any formats and orders of axes that `read_scan` knows, as one patient.

    Args:
        pair: the files.
        window: as `read_nifti_folder` takes it.
        labels: the label values that together are the organ.
        channel: of an image with several, from 0.

    Returns:
        Image (D, H, W) in the unit of the file, label (D, H, W), spacing in mm; the axes run as in `Scan`.

    Raises:
        ValueError: a file that `read_scan` refuses, an image and labels of different shapes or positions in space,
            labels that are not whole numbers.
    """
    image, mask = read_scan(pair.image, channel=channel), read_scan(pair.mask)
    if image.image.shape != mask.image.shape:
        raise ValueError(
            f"expected {pair.mask} to have the shape of its image, {image.image.shape}, got {mask.image.shape}"
        )
    apart = np.abs(image.geometry.frame() - mask.geometry.frame())
    # A step that is off by this much adds up over the slices of a long volume to a fraction of a voxel.
    if apart[0].max() > 0.1 * min(image.spacing) or apart[1:].max() > 1e-3:
        raise ValueError(
            f"expected {pair.mask} to lie where its image lies, got an origin {apart[0].max():.3g} mm away and steps "
            f"between voxels that differ by {apart[1:].max():.3g} mm"
        )
    return Case(
        pair.name,
        pair.name,
        image.image,
        select_labels(mask.image, labels, pair.mask),
        image.spacing,
        percentile_window(image.image) if window is None else window,
        image.geometry,
    )


def select_labels(values: NDArray[np.number], labels: Sequence[int], path: Path) -> NDArray[np.bool_]:
    """Return where a label map read from `path` has one of `labels`.

    Raises:
        ValueError: the map holds values that are not whole numbers: it is no label map.
    """
    if values.dtype.kind == "f" and not np.array_equal(values, np.round(values)):
        raise ValueError(f"expected {path} to hold whole numbers, got others: it is no label map")
    return np.isin(values, labels)
