"""`python -m reference prepare`: a data set becomes a store that is mapped into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from reference.data.layouts import (
    Layout,
    Reading,
    Source,
    Window,
    check_labels,
    default_window,
    detect_layout,
    find_sources,
)
from reference.data.prepare import prepare as prepare_cases

LayoutOption = Annotated[
    Layout | None,
    typer.Option(
        help="nih: DICOM in PANCREAS_0001 …, label0001.nii.gz …. msd: imagesTr, labelsTr, dataset.json. nifti: "
        "imagesTr and labelsTr or images and labels, NIfTI, NRRD or DICOM. isicdm: the same in thin and in thick. "
        "images2d: images and masks. Without it: by the folders that are there.",
        show_default=False,
    ),
]
WindowOption = Annotated[
    str | None,
    typer.Option(
        help="LO,HI, the intensities that become 0 and 1, or percentiles (0.5 and 99.5 of each image). Without it: "
        "-100,240 HU for CT, -125,275 for the MSD spleen, 0,255 for 2-D images, percentiles for MR.",
        show_default=False,
    ),
]
LabelsOption = Annotated[str, typer.Option(help="Label values that together are the organ, such as 1,2.")]
ChannelOption = Annotated[
    int | None, typer.Option(min=0, help="Of 4-D images, the channel to take.", show_default=False)
]


def parse_window(text: str) -> Window:
    """Return the window that "LO,HI" or "percentiles" names."""
    if text == "percentiles":
        return "percentiles"
    try:
        lo, hi = (float(edge) for edge in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"expected LO,HI or percentiles, got {text!r}", param_hint="--window") from error
    return lo, hi


def parse_labels(text: str) -> tuple[int, ...]:
    """Return the label values that "1,2" names."""
    try:
        return tuple(int(value) for value in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"expected label values such as 1,2, got {text!r}", param_hint="--labels") from error


def choose_reading(
    data: Path, layout: Layout, window: str | None, labels: str, size: int | None, channel: int | None
) -> Reading:
    """Return how to read a data set by the options of a command line."""
    organ = parse_labels(labels)
    check_labels(data, layout, organ)
    chosen = default_window(data, layout) if window is None else parse_window(window)
    return Reading(chosen, organ, size, channel)


def prepare(
    data: Annotated[Path, typer.Argument(help="The data set.")],
    store: Annotated[Path, typer.Argument(help="Folder to write: a folder for each case.")],
    layout: LayoutOption = None,
    window: WindowOption = None,
    labels: LabelsOption = "1",
    size: Annotated[
        int | None, typer.Option(min=1, help="Resize slices to this many pixels, the longer side.", show_default=False)
    ] = None,
    channel: ChannelOption = None,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Leave damaged cases out, and list them at the end.")
    ] = False,
) -> None:
    """Read a data set and write it as a store, which is mapped into memory for training.

    A run that was interrupted goes on where it was; cases whose files and options are the same are kept.
    """
    try:
        chosen = layout or detect_layout(data)
        sources = find_sources(data, chosen)
        reading = choose_reading(data, chosen, window, labels, size, channel)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="DATA") from error
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns) as progress:
            done = prepare_cases(_shown(sources, progress), store, reading, skip_damaged=skip_damaged)
    except ValueError as error:
        message = f"{error} (--skip-damaged leaves out what cannot be read)"
        raise typer.BadParameter(message, param_hint="DATA") from error
    typer.echo(f"{len(done.written)} written, {len(done.kept)} kept, {len(done.damaged)} damaged and left out")
    for name, reason in done.damaged.items():
        typer.echo(f"left out {name}: {reason}", err=True)


def _shown(sources: Sequence[Source], progress: Progress) -> Iterator[Source]:
    """Yield the cases; the progress bar names the one at work."""
    task = progress.add_task("", total=len(sources))
    for source in sources:
        progress.update(task, description=source.pair.name)
        yield source
        progress.advance(task)
