"""`python -m reference check`: look at the data before training on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from reference.commands.prepare import ChannelOption, LabelsOption, LayoutOption, WindowOption, choose_reading
from reference.data.case import Case
from reference.data.inspection import Inspection, inspect_case
from reference.data.layouts import detect_layout, find_sources, read_source
from reference.data.overlays import Panel, draw_pages, organ_panels
from reference.data.store import find_cases, read_case

Load = Callable[[], Case]


def check(
    data: Annotated[Path, typer.Argument(help="A store or a data set.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("check"),
    layout: LayoutOption = None,
    window: WindowOption = None,
    labels: LabelsOption = "1",
    channel: ChannelOption = None,
) -> None:
    """Print shape, spacing, organ and intensities of every case and what is suspicious; draw where the labels lie.

    The options but --out say how a data set is read; a store has been read before. Exits with 1 if a case is damaged.
    """
    try:
        cases: dict[str, Load] = {folder.name: partial(read_case, folder) for folder in find_cases(data)}
        if not cases:
            chosen = layout or detect_layout(data)
            reading = choose_reading(data, chosen, window, labels, None, channel)
            cases = {source.pair.name: partial(read_source, source, reading) for source in find_sources(data, chosen)}
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="DATA") from error
    seen: list[Inspection] = []
    damaged: dict[str, str] = {}
    pages = list(draw_pages(out, _look(cases, seen, damaged)))
    console = Console(width=max(Console().width, 160), highlight=False)  # Narrower, the table is cut.
    console.print(_table(seen))
    suspicious = [f"{inspection.name}: {warning}" for inspection in seen for warning in inspection.warnings]
    for message in (*suspicious, *(f"{name} is damaged: {reason}" for name, reason in damaged.items())):
        typer.echo(message, err=True)
    count = sum(bool(inspection.warnings) for inspection in seen)
    typer.echo(f"{len(seen)} cases, {count} of them suspicious; {len(damaged)} damaged; {len(pages)} pages in {out}")
    if damaged:
        raise typer.Exit(1)


def _look(cases: Mapping[str, Load], seen: list[Inspection], damaged: dict[str, str]) -> Iterator[Panel]:
    """Read the cases one after the other, note what is to be said of them, and yield what is to be drawn."""
    for name, load in track(cases.items(), description="reading"):
        try:
            case = load()
        except (OSError, ValueError) as error:
            damaged[name] = str(error)
            continue
        seen.append(inspect_case(case))
        yield from organ_panels(case)


def _table(seen: list[Inspection]) -> Table:
    table = Table("case", box=box.SIMPLE_HEAD)
    for header in ("D×H×W", "spacing mm", "organ voxels", "organ ml", "intensities", "warnings"):
        table.add_column(header, justify="right", no_wrap=True)
    for inspection in seen:
        # Single slices have neither a thickness nor, as a rule, a pixel size.
        flat = inspection.shape[0] == 1
        table.add_row(
            inspection.name,
            "×".join(map(str, inspection.shape)),
            "–" if flat else "×".join(f"{step:.3g}" for step in inspection.spacing),
            f"{inspection.voxels:,}",
            "–" if flat else f"{inspection.milliliters:.2f}",
            f"{inspection.lowest:g} to {inspection.highest:g}",
            str(len(inspection.warnings) or ""),
        )
    return table
