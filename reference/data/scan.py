"""One volume on disk, NIfTI, NRRD or a DICOM series, in one orientation; masks go back onto its own voxels."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from multilevel_loss.distance.cache import replacing
from reference.data.dicom import read_series

NIFTI_SUFFIXES = (".nii.gz", ".nii")
SUFFIXES = (*NIFTI_SUFFIXES, ".nrrd", ".nhdr", ".mha", ".mhd")


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of a file lie, in the order of its axes and, as ITK has it, in mm to the left, back and head.

    Args:
        size: voxels along the axes of the file, the fastest first.
        spacing: mm between neighbours along them.
        origin: position of the first voxel in mm.
        direction: 3×3, row by row; its columns are the unit vectors of the axes.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]

    def canonical(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Turn an array in the order of the file, its last axis the fastest, to (D, H, W) as `Scan` has them."""
        order, flipped = self._turn()
        turned: NDArray[Any] = np.flip(volume.transpose(order), flipped)
        return turned

    def stored(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Undo `canonical`."""
        order, flipped = self._turn()
        turned: NDArray[Any] = np.flip(volume, flipped).transpose(np.argsort(order))
        return turned

    def frame(self) -> NDArray[np.float64]:
        """Return, each as x, y, z in mm, where voxel (0, 0, 0) of (D, H, W) lies, and the steps along D, H and W."""
        order, flipped = self._turn()
        steps = (np.reshape(self.direction, (3, 3)) * self.spacing).T[::-1][order]
        first = np.array(self.origin)
        for axis in flipped:
            first = first + steps[axis] * (self.size[2 - order[axis]] - 1)
            steps[axis] *= -1
        return np.stack([first, *steps])

    def _turn(self) -> tuple[list[int], tuple[int, ...]]:
        """Return the axis of the file that becomes D, H and W, and which of D, H, W then run backwards."""
        turn = sitk.DICOMOrientImageFilter()
        turn.SetDesiredCoordinateOrientation("LPS")
        pixel = sitk.Image(1, 1, 1, sitk.sitkUInt8)
        pixel.SetDirection(self.direction)
        turn.Execute(pixel)
        # SimpleITK counts axes from the fastest, NumPy from the slowest.
        order = [2 - axis for axis in reversed(turn.GetPermuteOrder())]
        return order, tuple(axis for axis, flip in enumerate(reversed(turn.GetFlipAxes())) if flip)


@dataclass(frozen=True, eq=False)
class Scan:
    """A volume without labels.

    Args:
        path: file, or folder of a DICOM series, it was read from.
        image: (D, H, W), integer or floating, in the unit of the file (HU for CT): D runs from feet to head, H from
            front to back, W from the patient's right to left, as nearly as the voxels do.
        spacing: mm along D, H, W.
        geometry: of the file, which may order and flip the axes otherwise.
    """

    path: Path
    image: NDArray[np.number]
    spacing: tuple[float, float, float]
    geometry: Geometry


def read_scan(path: Path, *, channel: int | None = None) -> Scan:
    """Read one scan and turn it to one orientation, whatever order the file stores.

    Args:
        path: a NIfTI, NRRD or MetaImage file, or a folder that holds, itself or in its subfolders, one DICOM series.
        channel: of an image with several channels (4-D NIfTI such as multi-modal MR) the one to take, from 0.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: a file that is unreadable, truncated or no volume, several channels and no `channel`, intensities
            that are not finite (ITK takes those of NIfTI files as 0), a folder without a series or with several, a
            series that lacks a slice.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"expected a scan at {path}, found none")
    volume = read_series(path) if path.is_dir() else _read_file(path)
    volume = _choose_channel(volume, channel, path)
    image = sitk.GetArrayFromImage(volume)
    if image.dtype.kind not in "iuf":
        raise ValueError(f"expected {path} to hold real numbers, got {volume.GetPixelIDTypeAsString()}")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise ValueError(
            f"expected {path} to hold finite intensities, got {np.count_nonzero(~np.isfinite(image))} others"
        )
    geometry = Geometry(volume.GetSize(), volume.GetSpacing(), volume.GetOrigin(), volume.GetDirection())
    order, _ = geometry._turn()
    depth, height, width = (geometry.spacing[2 - axis] for axis in order)
    return Scan(path, np.ascontiguousarray(geometry.canonical(image)), (depth, height, width), geometry)


def write_like(scan: Scan, mask: NDArray[np.bool_], path: Path) -> None:
    """Write `mask` (D, H, W) as 0 and 1 of 8 bits on the voxels of the file that `scan` was read from.

    Size, order of axes, origin, spacing and direction are the file's. (NIfTI keeps an oblique direction as a float32
    quaternion, so it may come back different by 1e-7.) The file appears in one atomic step.

    Args:
        scan: as `read_scan` returned it.
        mask: of the shape of `scan.image`.
        path: file to write; its suffix, .nii.gz, .nii, .nrrd or .mha, is the format.

    Raises:
        ValueError: another shape or suffix.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if mask.shape != scan.image.shape:
        raise ValueError(f"expected `mask` to have the shape of the scan, {scan.image.shape}, got {mask.shape}")
    suffix = next((suffix for suffix in (*NIFTI_SUFFIXES, ".nrrd", ".mha") if path.name.lower().endswith(suffix)), None)
    if suffix is None:
        raise ValueError(f"expected `path` to end in .nii.gz, .nii, .nrrd or .mha, got {path.name}")
    image = sitk.GetImageFromArray(scan.geometry.stored(mask).astype(np.uint8, order="C"))
    image.SetOrigin(scan.geometry.origin)
    image.SetSpacing(scan.geometry.spacing)
    image.SetDirection(scan.geometry.direction)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=suffix != ".nii")
        except RuntimeError as error:
            raise OSError(f"{path} cannot be written: {_reason(error)}") from error


def _read_file(path: Path) -> sitk.Image:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        image: sitk.Image = reader.Execute()
    except RuntimeError as error:
        raise ValueError(f"expected {path} to be a volume, but it cannot be read: {_reason(error)}") from error
    if path.name.lower().endswith(NIFTI_SUFFIXES):
        _check_whole(path, reader, image)
    return image


def _check_whole(path: Path, reader: sitk.ImageFileReader, image: sitk.Image) -> None:
    """Raise where a NIfTI file ends early: ITK reads it as if its missing end were zeros."""
    bits = image.GetNumberOfPixels() * int(reader.GetMetaData("bitpix"))
    if _uncompressed_bytes(path) < float(reader.GetMetaData("vox_offset")) + bits / 8:
        raise ValueError(f"expected {path} to be a whole NIfTI volume, but it is truncated or damaged")


def _uncompressed_bytes(path: Path) -> int:
    if not path.name.lower().endswith(".gz"):
        return path.stat().st_size
    length = 0
    try:
        with gzip.open(path) as stream:
            while block := stream.read(1 << 20):
                length += len(block)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return 0
    return length


def _choose_channel(image: sitk.Image, channel: int | None, path: Path) -> sitk.Image:
    if image.GetDimension() == 4 and (image.GetSize()[3] == 1 or channel is not None):
        channel = 0 if channel is None else channel
        if not 0 <= channel < image.GetSize()[3]:
            raise ValueError(f"expected `channel` to be one of the {image.GetSize()[3]} of {path}, got {channel}")
        image = image[:, :, :, channel]
    components = image.GetNumberOfComponentsPerPixel()
    if image.GetDimension() != 3 or components != 1:
        hint = ": choose one of its channels" if image.GetDimension() == 4 else ""
        raise ValueError(
            f"expected {path} to be a 3-D volume of one value a voxel, got size "
            f"{'×'.join(map(str, image.GetSize()))} and {components} values a voxel{hint}"
        )
    return image


def _reason(error: RuntimeError) -> str:
    """Return the last line of what ITK says."""
    return str(error).strip().splitlines()[-1].strip()
