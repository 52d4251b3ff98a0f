"""A CT or MR volume as a folder of DICOM files, one a slice."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

POSITION, ORIENTATION = "0020|0032", "0020|0037"


def read_series(folder: Path) -> sitk.Image:
    """Read the one series in `folder` or its subfolders, slices in the order of their positions.

    Raises:
        ValueError: no series or several, a file that is damaged, slices that are missing, doubled or sheared.
    """
    present = dicom_files(folder)
    series = {
        (parent, number): [Path(file) for file in sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(parent), number)]
        for parent in sorted({file.parent for file in present})
        for number in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(parent))
    }
    # GDCM leaves out what it cannot read without a word, and the volume is a slice short.
    damaged = sorted(set(present) - {file for files in series.values() for file in files})
    if damaged:
        raise ValueError(f"expected {damaged[0]} to be a whole DICOM file, but it cannot be read")
    if len(series) != 1:
        found = ", ".join(f"{parent} ({len(files)} files)" for (parent, _), files in series.items()) or "none"
        raise ValueError(f"expected one DICOM series in {folder}, found {found}")
    (files,) = series.values()
    if len(files) > 1:
        _check_positions(folder, files)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in files])
    try:
        volume: sitk.Image = reader.Execute()
    except RuntimeError as error:
        raise ValueError(f"expected {folder} to be a DICOM series, but it cannot be read: {error}") from error
    return volume


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files in `folder` and its subfolders: those named so, and those that begin so."""
    return [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and not file.name.startswith(".")
        and file.name != "DICOMDIR"
        and (file.suffix.lower() == ".dcm" or _is_dicom(file))
    ]


def _is_dicom(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _check_positions(folder: Path, files: list[Path]) -> None:
    """Raise where slices are not evenly spaced along their normal: ITK would pull them into place."""
    reader = sitk.ImageFileReader()
    positions, normals = [], []
    for file in files:
        reader.SetFileName(str(file))
        reader.ReadImageInformation()
        try:
            position, axes = (
                [float(v) for v in reader.GetMetaData(key).split("\\")] for key in (POSITION, ORIENTATION)
            )
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"expected {file} to state the position and orientation of its slice") from error
        positions.append(position)
        normals.append(np.cross(axes[:3], axes[3:]))
    steps = np.diff(positions, axis=0)
    along = np.einsum("nk,k->n", steps, normals[0])
    step = np.median(along)
    where = int(np.abs(along - step).argmax())
    if not np.allclose(along, step, rtol=0, atol=0.1 * abs(step)):
        raise ValueError(
            f"expected the slices of {folder} to be evenly spaced, about {step:g} mm, got {along[where]:g} mm between "
            f"{files[where].name} and {files[where + 1].name}: one is missing or doubled"
        )
    aside = np.linalg.norm(steps - along[:, None] * normals[0], axis=1).max()
    if aside > 0.1 * abs(step) or not np.allclose(normals, normals[0], atol=1e-3):
        raise ValueError(
            f"expected the slices of {folder} to lie straight above each other, got a shift of {aside:g} mm from one "
            "to the next: a tilted gantry must be corrected first"
        )
