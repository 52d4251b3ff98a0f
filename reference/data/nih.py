"""NIH Pancreas-CT as TCIA hands it out: DICOM series, and labels in NIfTI files that lie otherwise than the series."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reference.data.case import Case, percentile_window
from reference.data.flips import find_flip
from reference.data.nifti import select_labels
from reference.data.pairs import Pair
from reference.data.scan import read_scan

WITHDRAWN = (25, 70)
"""TCIA took these cases back; their labels, or all of them, may still be there."""

WINDOW = (-100.0, 240.0)


def find_nih_pairs(folder: Path) -> list[Pair]:
    """Return the series and labels of each patient, sorted: folders `PANCREAS_0001`, files `label0001.nii.gz`.

    Both may lie in any subfolders of `folder`. The withdrawn cases 25 and 70 are left out where either is absent.

    Raises:
        ValueError: none there, a series without labels, labels without a series, or two of one number.
    """
    series = _by_number(folder, "PANCREAS_*", r"PANCREAS_(\d{4})")
    labels = _by_number(folder, "label*", r"label(\d{4})\.nii(?:\.gz)?")
    for present, absent, kind in ((series, labels, "labels"), (labels, series, "a series")):
        lonely = sorted(present.keys() - absent.keys() - set(WITHDRAWN))
        if lonely:
            more = f" (and {len(lonely) - 1} more)" if len(lonely) > 1 else ""
            raise ValueError(f"expected {kind} for {present[lonely[0]]} in {folder}, found none{more}")
    numbers = sorted(series.keys() & labels.keys())
    if not numbers:
        raise ValueError(f"expected folders PANCREAS_0001 … and files label0001.nii.gz … in {folder}, found none")
    return [Pair(f"PANCREAS_{number:04d}", series[number], labels[number]) for number in numbers]


def _by_number(folder: Path, glob: str, pattern: str) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for path in sorted(folder.rglob(glob)):
        if match := re.fullmatch(pattern, path.name):
            number = int(match[1])
            if number in found:
                raise ValueError(f"expected one {path.name} in {folder}, got {found[number]} and {path}")
            found[number] = path
    return found


def read_nih_pair(pair: Pair, *, window: tuple[float, float] | None = WINDOW, labels: Sequence[int] = (1,)) -> Case:
    """Read one patient; the labels are flipped so that they meet the organ, whatever their file says of its axes.

    Raises:
        ValueError: a file that cannot be read, shapes that differ, labels that meet the organ under no flip of their
            axes or under more than one.
    """
    scan = read_scan(pair.image)
    stored = read_scan(pair.mask)
    # As the file has them, without regard to what it says of directions: that is not the series'.
    mask = select_labels(stored.geometry.stored(stored.image), labels, pair.mask)
    image = scan.geometry.stored(scan.image)
    if image.shape != mask.shape:
        raise ValueError(f"expected {pair.mask} to have the shape of its series, {image.shape}, got {mask.shape}")
    try:
        flipped = np.flip(mask, find_flip(image, mask, WINDOW))
    except ValueError as error:
        raise ValueError(f"{pair.mask} on {pair.image}: {error}") from error
    label = np.ascontiguousarray(scan.geometry.canonical(flipped))
    if window is None:
        window = percentile_window(scan.image)
    return Case(pair.name, pair.name, scan.image, label, scan.spacing, window, scan.geometry)
