"""Which data set a folder holds, where its cases lie, and how each is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from reference.data.case import Case, resize_slices
from reference.data.images2d import SUFFIXES as IMAGE_SUFFIXES
from reference.data.images2d import patient_of, read_image_pair
from reference.data.nifti import read_pair
from reference.data.nih import WINDOW, find_nih_pairs, read_nih_pair
from reference.data.pairs import Pair, find_pairs
from reference.data.scan import SUFFIXES as VOLUME_SUFFIXES

Layout = Literal["nih", "msd", "isicdm", "nifti", "images2d"]
Window = tuple[float, float] | Literal["percentiles"]

SPLEEN_WINDOW = (-125.0, 275.0)
VOLUME_FOLDERS = (("imagesTr", "labelsTr"), ("images", "labels"))
THICKNESSES = ("thin", "thick")


class Source(NamedTuple):
    """One case that has not been read: its layout, its patient and its files."""

    layout: Layout
    patient: str
    pair: Pair


@dataclass(frozen=True)
class Reading:
    """How cases are read.

    Args:
        window: (lo, hi), what becomes 0 and 1, or "percentiles": each image's own 0.5th and 99.5th.
        labels: the label values that together are the organ.
        size: pixels of a slice's longer side after resizing in plane; None keeps it.
        channel: of images with several, from 0.
    """

    window: Window
    labels: tuple[int, ...] = (1,)
    size: int | None = None
    channel: int | None = None


def detect_layout(folder: Path) -> Layout:
    """Return the layout of a data set by the folders it has.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it has none of the known layouts.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"expected a folder at {folder}, found none")
    if (folder / "images").is_dir() and (folder / "masks").is_dir():
        return "images2d"
    if _volume_folders(folder) is not None:
        return "msd" if (folder / "dataset.json").is_file() else "nifti"
    if any((folder / thickness).is_dir() for thickness in THICKNESSES):
        return "isicdm"
    if any(folder.rglob("PANCREAS_[0-9]*")):
        return "nih"
    raise ValueError(
        f"expected {folder} to hold imagesTr and labelsTr, images and labels, images and masks (2-D), thin or thick, "
        "or PANCREAS_0001 …, found none of these"
    )


def find_sources(folder: Path, layout: Layout | None = None) -> list[Source]:
    """Return the cases of a data set, sorted by name, without reading them.

    Args:
        folder: the data set.
        layout: as `detect_layout` finds it by default.
            "nih": DICOM series in folders PANCREAS_0001 …, labels in files label0001.nii.gz ….
            "msd": a task of the Medical Segmentation Decathlon, imagesTr, labelsTr and dataset.json.
            "nifti": imagesTr and labelsTr, or images and labels: volumes in NIfTI, NRRD, MetaImage or DICOM folders.
            "isicdm": the same in each of the folders thin and thick, whose cases of one name are one patient.
            "images2d": images and masks, single slices.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: an image without labels or labels without an image, a folder without cases.
    """
    folder = Path(folder)
    layout = layout or detect_layout(folder)
    if layout == "nih":
        return [Source(layout, pair.name, pair) for pair in find_nih_pairs(folder)]
    if layout == "images2d":
        pairs = find_pairs(folder / "images", folder / "masks", IMAGE_SUFFIXES)
        return [Source(layout, patient_of(pair.name), pair) for pair in pairs]
    if layout == "isicdm":
        return [
            Source(layout, pair.name, pair._replace(name=f"{thickness}-{pair.name}"))
            for thickness in sorted(THICKNESSES)
            if (folder / thickness).is_dir()
            for pair in _volume_pairs(folder / thickness)
        ]
    pairs = _listed_pairs(folder) if layout == "msd" else _volume_pairs(folder)
    return [Source(layout, pair.name, pair) for pair in pairs]


def default_window(folder: Path, layout: Layout) -> Window:
    """Return the window the paper uses for a data set, or percentiles for MR.

    Raises:
        ValueError: there is no telling what unit its images have.
    """
    if layout == "images2d":
        return 0.0, 255.0
    if layout in ("nih", "isicdm"):
        return WINDOW
    task = _task(folder) if layout == "msd" else {}
    modalities = {str(name).upper() for name in dict(task.get("modality", {})).values()}
    if modalities == {"CT"}:
        return SPLEEN_WINDOW if "spleen" in str(task.get("name")).lower() else WINDOW
    if modalities and not any("CT" in name for name in modalities):
        return "percentiles"
    raise ValueError(
        f"expected a window, such as -100,240 (HU) for CT or percentiles for MR: {folder} does not say which it holds"
    )


def read_source(source: Source, reading: Reading) -> Case:
    """Read one case.

    Raises:
        OSError, ValueError: a file is missing or damaged, or image and labels do not belong together.
    """
    window = None if reading.window == "percentiles" else reading.window
    if source.layout == "nih":
        case = read_nih_pair(source.pair, window=window, labels=reading.labels)
    elif source.layout == "images2d":
        case = read_image_pair(source.pair, window=window)
    else:
        case = read_pair(source.pair, window=window, labels=reading.labels, channel=reading.channel)
    case = replace(case, patient=source.patient)
    return case if reading.size is None else resize_slices(case, reading.size)


def check_labels(folder: Path, layout: Layout, labels: Sequence[int]) -> None:
    """Check that a data set that lists its labels has `labels`.

    Raises:
        ValueError: it does not list one of them.
    """
    known = dict(_task(folder).get("labels", {})) if layout == "msd" else {}
    absent = sorted(set(labels) - {int(value) for value in known})
    if known and absent:
        listed = ", ".join(f"{value} ({name})" for value, name in known.items())
        raise ValueError(f"expected `labels` to be some of {listed}, got {absent[0]}")


def _volume_folders(folder: Path) -> tuple[Path, Path] | None:
    pairs = ((folder / images, folder / labels) for images, labels in VOLUME_FOLDERS)
    return next((pair for pair in pairs if all(part.is_dir() for part in pair)), None)


def _volume_pairs(folder: Path) -> list[Pair]:
    folders = _volume_folders(folder)
    if folders is None:
        raise FileNotFoundError(f"expected imagesTr and labelsTr, or images and labels, in {folder}, found neither")
    return find_pairs(*folders, VOLUME_SUFFIXES, folders=True)


def _listed_pairs(folder: Path) -> list[Pair]:
    """Return the training pairs that dataset.json lists."""
    pairs = {pair.image.resolve(): pair for pair in _volume_pairs(folder)}
    entries = _task(folder).get("training")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"expected {folder / 'dataset.json'} to list its training cases, found none")
    listed = []
    for entry in entries:
        image, mask = ((folder / entry[part]).resolve() for part in ("image", "label"))
        if image not in pairs or pairs[image].mask.resolve() != mask:
            raise ValueError(f"expected {image} and {mask}, as dataset.json lists them, found none or other names")
        listed.append(pairs[image])
    return sorted(listed)


def _task(folder: Path) -> dict[str, Any]:
    path = folder / "dataset.json"
    try:
        return dict(json.loads(path.read_text()))
    except ValueError as error:
        raise ValueError(f"expected {path} to describe the task in JSON, but it cannot be read: {error}") from error
