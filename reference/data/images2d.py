"""A folder of 2-D images and masks: JPEG, PNG or TIFF files of 8 bits."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from reference.data.case import Case, percentile_window, resize_slices
from reference.data.pairs import Pair, find_pairs

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


def read_image_folder(folder: Path, *, size: int | None = None, threshold: int = 127) -> list[Case]:
    """Read `folder/images/` and `folder/masks/`, each image as a volume of one slice.

    An image and its mask share a name; what stands before the last "-" of it is the patient
    ("`PANCREAS_0002-1090.jpg`" belongs to "`PANCREAS_0002`"), or all of it where there is none.
    Such files carry no voxel spacing: distances are in pixels of the file, also after resizing.

    Args:
        folder: holds `images` and `masks`.
        size: pixels of the longer side after resizing; None keeps every image as it is.
        threshold: a mask pixel brighter than this, 0 to 255, is organ. Masks stored as JPEG need one near the middle.

    Returns:
        The cases, sorted by name: image (1, H, W), uint8 (float32 when resized), label (1, H, W), spacing in pixels.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: an image without mask or a mask without image, a file that is truncated, unreadable or not of
            8 bits, an image and a mask of different shapes.
    """
    pairs = find_pairs(Path(folder) / "images", Path(folder) / "masks", SUFFIXES)
    cases = (read_image_pair(pair, threshold=threshold) for pair in pairs)
    return [case if size is None else resize_slices(case, size) for case in cases]


def read_image_pair(pair: Pair, *, window: tuple[float, float] | None = (0.0, 255.0), threshold: int = 127) -> Case:
    """Read one image and its mask as a volume of one slice.

    Args:
        pair: the files.
        window: grey values (lo, hi) that become 0 and 1; None takes the image's own 0.5th and 99.5th percentile.
        threshold: a mask pixel brighter than this is organ.

    Raises:
        ValueError: as `read_image_folder`.
    """
    image, mask = _read_gray(pair.image), _read_gray(pair.mask)
    if image.shape != mask.shape:
        raise ValueError(f"expected {pair.mask} to have the shape of its image, {image.shape}, got {mask.shape}")
    return Case(
        pair.name,
        patient_of(pair.name),
        image[None],
        (mask > threshold)[None],
        (1.0, 1.0, 1.0),
        percentile_window(image) if window is None else window,
    )


def patient_of(name: str) -> str:
    """Return the patient of a 2-D image: what stands before the last "-", or all where there is none."""
    return name.rpartition("-")[0] or name


def _read_gray(path: Path) -> NDArray[np.uint8]:
    content = path.read_bytes()
    # Some OpenCV releases decode a truncated JPEG and fill the rest with grey: look for the end-of-image marker that
    # follows the last start-of-scan marker (an embedded thumbnail has markers of its own, but before it).
    if content.startswith(b"\xff\xd8") and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
        raise ValueError(f"expected {path} to be a whole image, but it is truncated")
    # Orientation tags are ignored: image and mask must meet pixel by pixel, as stored.
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    if pixels is None:
        raise ValueError(f"expected {path} to be a whole image, but it cannot be decoded")
    if pixels.dtype != np.uint8:
        raise ValueError(f"expected {path} to have 8 bits a pixel, got {pixels.dtype}")
    return np.asarray(pixels, dtype=np.uint8)
