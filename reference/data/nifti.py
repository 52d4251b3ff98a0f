"""A folder of NIfTI volumes and label maps, laid out as the Medical Segmentation Decathlon does."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from reference.data.case import Case, percentile_window, resize_slices
from reference.data.pairs import find_pairs

SUFFIXES = (".nii.gz", ".nii")


def read_nifti_folder(
    folder: Path,
    *,
    window: tuple[float, float] | None,
    labels: Sequence[int] = (1,),
    size: int | None = None,
) -> list[Case]:
    """Read `folder/imagesTr/` and `folder/labelsTr/`; every volume is one patient.

    Volumes are turned to one orientation first: D runs from feet to head, H from front to back, W from the patient's
    right to left, whatever order the file stores.

    Args:
        folder: holds `imagesTr` and `labelsTr`.
        window: intensities (lo, hi) that become 0 and 1, in the unit of the files, e.g. (-100, 240) HU; those outside
            are clipped. None takes each volume's own 0.5th and 99.5th percentile (MR has no fixed unit).
        labels: the label values that together are the organ.
        size: pixels of a slice's longer side after resizing in plane; None keeps the volume as it is.

    Returns:
        The cases, sorted by name: image (D, H, W) in the files' unit, label (D, H, W), spacing in mm.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: an image without labels or labels without image, a file that is truncated, unreadable or not 3-D,
            an image and labels of different shapes or positions in space.
    """
    cases = []
    for pair in find_pairs(Path(folder) / "imagesTr", Path(folder) / "labelsTr", SUFFIXES):
        image, mask = _read_volume(pair.image), _read_volume(pair.mask)
        if image.GetSize() != mask.GetSize():
            raise ValueError(
                f"expected {pair.mask} to have the shape of its image, {image.GetSize()[::-1]}, "
                f"got {mask.GetSize()[::-1]}"
            )
        if not np.allclose(_geometry(image), _geometry(mask), atol=1e-3):
            raise ValueError(f"expected {pair.mask} to lie where its image lies, got another origin, spacing or axes")
        depth, height, width = (float(step) for step in image.GetSpacing()[::-1])
        values = sitk.GetArrayFromImage(image)
        case = Case(
            pair.name,
            pair.name,
            values,
            np.isin(sitk.GetArrayFromImage(mask), labels),
            (depth, height, width),
            percentile_window(values) if window is None else window,
        )
        cases.append(case if size is None else resize_slices(case, size))
    return cases


def _read_volume(path: Path) -> sitk.Image:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        image = reader.Execute()
    except RuntimeError as error:
        raise ValueError(f"expected {path} to be a NIfTI volume, but it cannot be read") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise ValueError(
            f"expected {path} to be a 3-D volume of one value a voxel, got {image.GetDimension()} axes and "
            f"{image.GetNumberOfComponentsPerPixel()} values a voxel"
        )
    # ITK reads a truncated file as if its missing end were zeros.
    needed = float(reader.GetMetaData("vox_offset")) + image.GetNumberOfPixels() * int(reader.GetMetaData("bitpix")) / 8
    if _uncompressed_bytes(path) < needed:
        raise ValueError(f"expected {path} to be a whole NIfTI volume, but it is truncated")
    oriented: sitk.Image = sitk.DICOMOrient(image, "LPS")
    return oriented


def _uncompressed_bytes(path: Path) -> int:
    if path.suffix != ".gz":
        return path.stat().st_size
    length = 0
    try:
        with gzip.open(path) as stream:
            while block := stream.read(1 << 20):
                length += len(block)
    except (EOFError, gzip.BadGzipFile):
        return 0
    return length


def _geometry(image: sitk.Image) -> list[float]:
    return [*image.GetOrigin(), *image.GetSpacing(), *image.GetDirection()]
