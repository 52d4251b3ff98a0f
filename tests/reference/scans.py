"""Small scans that tests write to disk."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

STRAIGHT = np.eye(3)


def write_volume(path, array, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=STRAIGHT):
    """Write `array`, its last axis the fastest; spacing follows the array, origin and direction ITK's x, y, z."""
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = sitk.GetImageFromArray(array)
    volume.SetSpacing(spacing[::-1])
    volume.SetOrigin(origin)
    volume.SetDirection(np.asarray(direction, dtype=float).ravel().tolist())
    sitk.WriteImage(volume, str(path))


def write_series(
    folder: Path,
    array: NDArray[np.generic],
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    direction: NDArray[np.float64] = STRAIGHT,
    uid: str = "1.2.826.0.1.3680043.8.498.1",
    intercept: int = 0,
) -> list[Path]:
    """Write a DICOM series, a file a slice, in an order of file names that is not the order of slices."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    files = []
    for k, pixels in enumerate(array):
        image = sitk.GetImageFromArray(pixels)
        image.SetSpacing(spacing[:0:-1])
        position = np.asarray(origin) + k * spacing[0] * direction[:, 2]
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{uid}.{k + 1}",
            "0008|0060": "CT",
            "0018|0050": str(spacing[0]),
            "0020|000d": f"{uid}.0",
            "0020|000e": uid,
            "0020|0013": str(k + 1),
            "0020|0032": "\\".join(f"{value:.9g}" for value in position),
            "0020|0037": "\\".join(f"{value:.12g}" for value in direction[:, :2].T.ravel()),
            "0028|1052": str(intercept),
            "0028|1053": "1",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        files.append(folder / f"{hash_order(k)}-{k + 1:03d}.dcm")
        writer.SetFileName(str(files[-1]))
        writer.Execute(image)
    return files


def hash_order(k: int) -> int:
    """Shuffle a slice number."""
    return 37 * (k + 1) % 101
