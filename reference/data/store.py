"""Prepared cases on disk: a folder for each, whose arrays are mapped into memory and read as they are used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference.data.case import Case
from reference.data.scan import Geometry

# Raise it when stores already written no longer hold what this version would write.
FORMAT = 1
IMAGE, LABEL, RECORD = "image.npy", "label.npy", "case.json"


def read_store(store: Path) -> list[Case]:
    """Return the cases of a folder that `python -m reference prepare` wrote, sorted by name.

    Images and labels are mapped into memory, read-only: nothing of them is read before it is used, and processes share
    what has been read.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no case in it, a case that is damaged or of another format.
    """
    store = Path(store)
    if not store.is_dir():
        raise FileNotFoundError(f"expected a store at {store}, found none")
    folders = find_cases(store)
    if not folders:
        raise ValueError(f"expected prepared cases in {store}, found none")
    return [read_case(folder) for folder in folders]


def find_cases(store: Path) -> list[Path]:
    """Return the folders of a store's cases, sorted; none where `store` is no store."""
    return sorted(record.parent for record in store.glob(f"[!.]*/{RECORD}"))


def read_case(folder: Path) -> Case:
    """Return one case of a store.

    Raises:
        ValueError: it is damaged or of another format.
    """
    record = read_record(folder)
    if record.get("format") != FORMAT:
        raise ValueError(f"expected {folder} to be of format {FORMAT}, got {record.get('format')}: prepare it again")
    try:
        image, label = (np.load(folder / name, mmap_mode="r") for name in (IMAGE, LABEL))
        geometry = record["geometry"]
        return Case(
            record["name"],
            record["patient"],
            image,
            label,
            tuple(record["spacing"]),
            tuple(record["window"]),
            geometry and Geometry(**{name: tuple(values) for name, values in geometry.items()}),
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"expected {folder} to be a whole prepared case, but it is damaged: {error}") from error


def read_record(folder: Path) -> dict[str, Any]:
    """Return what is written beside the arrays of a case: geometry, sources and their hashes, options of reading.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"expected {folder} to be a whole prepared case, but it is damaged: {error}") from error
    return dict(record)


def write_case(store: Path, case: Case, provenance: Mapping[str, Any]) -> None:
    """Write a case, in place of an older one of its name; until it is whole nobody reads it.

    Args:
        store: the folder of all cases, made if absent.
        case: its image is stored in its own dtype, or the narrowest of 16 bits or more that holds the same integers.
        provenance: where the case comes from; JSON, written beside it.
    """
    folder, unfinished, old = store / case.name, *_leftovers(store, case.name)
    clear_leftovers(store, case.name)
    unfinished.mkdir(parents=True)
    record = {
        "format": FORMAT,
        "name": case.name,
        "patient": case.patient,
        "axes": "D to the head, H to the back, W to the left",
        "spacing": case.spacing,
        "window": case.window,
        "geometry": case.geometry and asdict(case.geometry),
        **provenance,
    }
    (unfinished / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    np.save(unfinished / IMAGE, _narrowed(case.image))
    np.save(unfinished / LABEL, case.label)
    if folder.exists():
        folder.rename(old)
    unfinished.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def clear_leftovers(store: Path, name: str) -> None:
    """Remove what a process that was killed while it wrote the case `name` has left behind."""
    for leftover in _leftovers(store, name):
        shutil.rmtree(leftover, ignore_errors=True)


def _leftovers(store: Path, name: str) -> tuple[Path, Path]:
    return store / f".unfinished-{name}", store / f".old-{name}"


def _narrowed(image: NDArray[np.number]) -> NDArray[np.number]:
    """Halve what needs no more: CT comes as 32-bit integers where the file has an intercept, doubles as scaled ones."""
    if image.dtype.kind == "f":
        return image.astype(np.float32, copy=False)
    if image.dtype.itemsize > 2:
        lo, hi = int(image.min()), int(image.max())
        for dtype in (np.int16, np.uint16):
            if np.iinfo(dtype).min <= lo and hi <= np.iinfo(dtype).max:
                return image.astype(dtype)
    return image
