"""Pictures of a training and of a test: loss curves, convergence over iterations, overlays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from reference.history import EpochRecord

TRUTH, PREDICTION, POINTS, AVERAGE = "#00e676", "#ff4081", "#40c4ff", "#d50000"
OVERLAPS = {"truth": (1.0, 0.0, 0.0), "prediction": (0.0, 0.8, 0.0), "both": (1.0, 1.0, 0.0)}
"""Colours of the paper's Figs. 8 and 9."""
STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}


@dataclass(frozen=True, eq=False)
class Overlay:
    """One slice to show.

    Args:
        image: (H, W), intensities in [0, 1].
        truth: (H, W), bool.
        prediction: (H, W), bool.
        points: (N, 2), the (x, y) of uncertain points in pixels, (0, 0) the centre of the first one.
        probability: (H, W), what the prediction was taken from; only `draw_selection` needs it.
    """

    image: NDArray[np.float32]
    truth: NDArray[np.bool_]
    prediction: NDArray[np.bool_]
    points: NDArray[np.float64]
    probability: NDArray[np.float32] | None = None


def draw_curves(path: Path, histories: Mapping[str, Sequence[EpochRecord]], title: str) -> None:
    """Draw the Dice losses of training and the DSC of validation over the epochs.

    The left panel is the paper's Fig. 5 where the histories are those of the three views. Dashed lines mark where a
    stage begins, and where the uncertain points do.

    Args:
        path: the PNG file to write.
        histories: one colour each, a view or a loss function by name; the marks are those of the longest.
        title: a line above both.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        figure.suptitle(title)
        training, validation = figure.subplots(1, 2)
        for number, (name, history) in enumerate(histories.items()):
            epochs = [record.epoch + 1 for record in history]
            color = f"C{number}"
            training.plot(epochs, [record.coarse for record in history], color=color, linestyle=":")
            training.plot(epochs, [record.region for record in history], color=color, label=name)
            validation.plot(epochs, [record.coarse_dsc for record in history], color=color, linestyle=":")
            validation.plot(epochs, [record.fine_dsc for record in history], color=color, label=name)
        lines = [*validation.get_lines()[1::2], Line2D([], [], color="gray"), Line2D([], [], color="gray", ls=":")]
        for axes, heading, label in ((training, "training", "Dice loss"), (validation, "validation", "DSC")):
            axes.set(xlabel="epoch", ylabel=label)
            axes.set_title(heading, pad=22)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            _mark_changes(axes, max(histories.values(), key=len))
        figure.legend(
            lines, [*histories, "fine model", "coarse model"], loc="outside lower center", ncols=len(lines), fontsize=8
        )
        _save(figure, path)


def _mark_changes(axes: Axes, history: Sequence[EpochRecord]) -> None:
    """Mark the epochs whose stage, or use of uncertain points, is not that of the epoch before."""
    for before, record in pairwise(history):
        changes = [f"stage {record.stage}"] if record.stage != before.stage else []
        if record.beta != 0 and before.beta == 0:
            changes.append("points")
        if changes:
            axes.axvline(record.epoch + 0.5, color="gray", linestyle="--", linewidth=0.8)
            above = axes.get_xaxis_transform()  # x in epochs, y in heights of the panel
            axes.text(record.epoch + 0.5, 1.01, "\n".join(changes), transform=above, fontsize=7, ha="center")


def draw_convergence(
    path: Path,
    dsc: Mapping[str, Sequence[float]],
    rdsc: Mapping[str, Sequence[float]],
    title: str,
    *,
    average: str | None = None,
) -> None:
    """Draw the mean DSC of each iteration of testing (0 is the coarse model), and the RDSC to the one before: Fig. 6.

    Args:
        path: the PNG file to write.
        dsc: for each loss function or fold, the values of iterations 0, 1, ….
        rdsc: for each loss function or fold, the values of iterations 1, 2, ….
        title: a line above both.
        average: the one among them that is the average of the others; it is drawn in red, they are dotted.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        figure.suptitle(title)
        panels: tuple[Axes, Axes] = figure.subplots(1, 2)
        for axes, values, first, label in zip(panels, (dsc, rdsc), (0, 1), ("DSC", "RDSC"), strict=True):
            for name, means in values.items():
                line = "-" if average in (None, name) else ":"
                color = AVERAGE if name == average else None
                rounds = range(first, first + len(means))
                axes.plot(rounds, means, line, color=color, marker="o", markersize=3, label=name)
            axes.set(xlabel="iteration", ylabel=f"{label}, mean over cases")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[1].axhline(0.99, color="gray", linestyle="--", linewidth=0.8)
        panels[1].legend()
        _save(figure, path)


def draw_overlays(path: Path, rows: Mapping[str, Mapping[str, Overlay]], title: str) -> None:
    """Draw a row for each case, a column for each loss function, and the whole slice with the truth before them.

    Args:
        path: the PNG file to write.
        rows: case name → loss function → the same slice of that case as segmented by each.
        title: a line above all.
    """
    losses = list(next(iter(rows.values())))
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(2.7 * (1 + len(losses)), 2.7 * len(rows) + 0.7), layout="constrained")
        figure.suptitle(title)
        grid = figure.subplots(len(rows), 1 + len(losses), squeeze=False)
        for line, (case, overlays) in zip(grid, rows.items(), strict=True):
            for axes in line:
                axes.set_axis_off()
            whole = next(iter(overlays.values()))
            line[0].imshow(whole.image, cmap="gray", vmin=0, vmax=1)
            _contour(line[0], whole.truth, TRUTH)
            line[0].set_title(case, fontsize=8)
            left, right, bottom, top = _view([*overlays.values()])
            for axes, loss in zip(line[1:], losses, strict=True):
                overlay = overlays[loss]
                axes.imshow(overlay.image, cmap="gray", vmin=0, vmax=1)
                axes.scatter(*overlay.points.T, s=3, color=POINTS, linewidths=0, alpha=0.8)
                _contour(axes, overlay.truth, TRUTH)
                _contour(axes, overlay.prediction, PREDICTION)
                axes.set(xlim=(left, right), ylim=(bottom, top))
                axes.set_title(loss, fontsize=8)
        handles = [
            Line2D([], [], color=TRUTH, label="truth"),
            Line2D([], [], color=PREDICTION, label="prediction"),
            Line2D([], [], color=POINTS, marker=".", linestyle="", label="uncertain points"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
        _save(figure, path)


def draw_overlaps(path: Path, rows: Mapping[str, Mapping[str, Overlay]], title: str) -> None:
    """Draw what truth and prediction have in common in yellow, the rest of them in red and green: Figs. 8 and 9.

    Args:
        path: the PNG file to write.
        rows: case name → method → the same slice of that case as segmented by each; a row each.
        title: a line above all.
    """
    methods = list(next(iter(rows.values())))
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(2.7 * len(methods), 2.7 * len(rows) + 0.9), layout="constrained")
        figure.suptitle(title)
        grid = figure.subplots(len(rows), len(methods), squeeze=False)
        for line, (case, overlays) in zip(grid, rows.items(), strict=True):
            left, right, bottom, top = _view([*overlays.values()])
            for axes, method in zip(line, methods, strict=True):
                overlay = overlays[method]
                pixels = np.repeat(overlay.image[..., None], 3, axis=2)
                areas = {
                    "truth": overlay.truth & ~overlay.prediction,
                    "prediction": overlay.prediction & ~overlay.truth,
                    "both": overlay.truth & overlay.prediction,
                }
                for name, area in areas.items():
                    pixels[area] = 0.4 * pixels[area] + 0.6 * np.array(OVERLAPS[name])
                axes.imshow(pixels, vmin=0, vmax=1)
                axes.set(xlim=(left, right), ylim=(bottom, top))
                axes.set_axis_off()
                axes.set_title(f"{case}\n{method}", fontsize=8)
        handles = [Patch(color=color, label=name) for name, color in OVERLAPS.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
        _save(figure, path)


def draw_selection(path: Path, overlay: Overlay, title: str) -> None:
    """Draw a slice, the probability of its organ, how uncertain that is, and the points chosen by it: Fig. 3.

    Raises:
        ValueError: the slice has no probability.
    """
    if overlay.probability is None:
        raise ValueError("expected `overlay` to have a probability, got None")
    uncertainty = 1 - abs(2 * overlay.probability - 1)
    left, right, bottom, top = _view([overlay])
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(11, 3.3), layout="constrained")
        figure.suptitle(title)
        panels = figure.subplots(1, 4)
        for axes, field, name, colors in zip(
            panels,
            (overlay.image, overlay.probability, uncertainty, overlay.probability),
            ("slice and truth", "probability", "uncertainty", "uncertain points"),
            ("gray", "viridis", "magma", "gray"),
            strict=True,
        ):
            axes.imshow(field, cmap=colors, vmin=0, vmax=1)
            axes.set(xlim=(left, right), ylim=(bottom, top))
            axes.set_axis_off()
            axes.set_title(name, fontsize=8)
        _contour(panels[0], overlay.truth, TRUTH)
        panels[3].scatter(*overlay.points.T, s=5, color=POINTS, linewidths=0)
        _save(figure, path)


def _contour(axes: Axes, mask: NDArray[np.bool_], color: str) -> None:
    if mask.any() and not mask.all():
        axes.contour(mask, levels=[0.5], colors=color, linewidths=1.1)


def _view(overlays: Sequence[Overlay]) -> tuple[float, float, float, float]:
    """Return left, right, bottom, top of a square around all masks, in the image."""
    height, width = overlays[0].image.shape
    union = np.logical_or.reduce([mask for overlay in overlays for mask in (overlay.truth, overlay.prediction)])
    rows, columns = np.nonzero(union) if union.any() else ([0, height - 1], [0, width - 1])
    side = min(max(np.ptp(rows), np.ptp(columns)) + 16, height, width)
    top = np.clip((np.min(rows) + np.max(rows) - side) / 2, -0.5, height - side - 0.5)
    left = np.clip((np.min(columns) + np.max(columns) - side) / 2, -0.5, width - side - 0.5)
    return float(left), float(left + side), float(top + side), float(top)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=130)
