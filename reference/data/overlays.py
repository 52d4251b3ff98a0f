"""Pages of pictures that show where the labels of each case lie."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from reference.data.case import Case

ROWS, COLUMNS = 4, 3
VIEWS = ("axial", "coronal", "sagittal")
OUTLINE = "#00e676"


class Panel(NamedTuple):
    """One slice to draw: its title, intensities in [0, 1], the mask of the organ, and height over width of a pixel."""

    title: str
    image: NDArray[np.float32]
    label: NDArray[np.bool_]
    aspect: float


def organ_panels(case: Case) -> list[Panel]:
    """Return the slice with most organ along each axis, head and front up; of a single slice that alone."""
    axes = (0, 1, 2) if len(case.image) > 1 else (0,)
    panels = []
    for axis in axes:
        others = tuple(other for other in range(3) if other != axis)
        j = int(np.count_nonzero(case.label, axis=others).argmax())
        index = (slice(None),) * axis + (j,)
        image, label = case.intensities(index), case.label[index]
        if axis > 0:
            image, label = image[::-1], label[::-1]  # D runs to the head
        title = f"{case.name}\n{VIEWS[axis]} {j + 1} of {case.image.shape[axis]}"
        panels.append(Panel(title, image, np.asarray(label), case.spacing[others[0]] / case.spacing[others[1]]))
    return panels


def draw_pages(folder: Path, panels: Iterable[Panel]) -> Iterator[Path]:
    """Draw `panels`, 12 a page, to PNG files in `folder`, and yield each file when it is written."""
    folder.mkdir(parents=True, exist_ok=True)
    remaining = iter(panels)
    for number in count(1):
        page = list(islice(remaining, ROWS * COLUMNS))
        if not page:
            return
        rows = math.ceil(len(page) / COLUMNS)
        figure = Figure(figsize=(3.2 * COLUMNS, 3.4 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        grid = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
        for axes in grid:
            axes.set_axis_off()
        for axes, panel in zip(grid, page, strict=False):
            axes.imshow(panel.image, cmap="gray", vmin=0, vmax=1, aspect=panel.aspect)
            if panel.label.any() and not panel.label.all():
                axes.contour(panel.label, levels=[0.5], colors=OUTLINE, linewidths=0.9)
            axes.set_title(panel.title, fontsize=7)
        path = folder / f"overlays-{number:03d}.png"
        figure.savefig(path, dpi=110)
        yield path
