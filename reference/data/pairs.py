"""Which image belongs to which mask."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Pair(NamedTuple):
    """An image file and its mask file, and the name they share."""

    name: str
    image: Path
    mask: Path


def find_pairs(images: Path, masks: Path, suffixes: tuple[str, ...], *, folders: bool = False) -> list[Pair]:
    """Return the files of two folders that share a name up to the suffix, sorted by name.

    Args:
        images: folder of images.
        masks: folder of masks; a mask has the name of its image and may have another suffix.
        suffixes: endings of the files to look at, lower case ("`.nii.gz`"); hidden files are left out.
        folders: look at subfolders too, whose name is theirs, each a DICOM series.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: a folder holds no such file or two of one name, an image has no mask, or a mask has no image.
    """
    image_files, mask_files = (_files_by_name(folder, suffixes, folders) for folder in (images, masks))
    for present, absent, folder, kind in (
        (image_files, mask_files, masks, "a mask"),
        (mask_files, image_files, images, "an image"),
    ):
        lonely = sorted(present.keys() - absent.keys())
        if lonely:
            more = f" (and {len(lonely) - 1} more)" if len(lonely) > 1 else ""
            raise ValueError(f"expected {kind} for {present[lonely[0]]} in {folder}, found none{more}")
    return [Pair(name, image_files[name], mask_files[name]) for name in sorted(image_files)]


def _files_by_name(folder: Path, suffixes: tuple[str, ...], folders: bool) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"expected a folder at {folder}, found none")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        endings = (suffix for suffix in suffixes if path.name.lower().endswith(suffix))
        suffix = ("" if folders else None) if path.is_dir() else next(endings, None)
        if suffix is None or path.name.startswith("."):
            continue
        name = path.name[: len(path.name) - len(suffix)]
        if name in files:
            raise ValueError(f"expected one file named {name!r} in {folder}, got {files[name].name} and {path.name}")
        files[name] = path
    if not files:
        raise ValueError(f"expected files ending in {', '.join(suffixes)} in {folder}, found none")
    return files
