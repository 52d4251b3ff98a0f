"""`python -m reference summary`: what the models cost."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from reference.baselines.vnet import PATCH_SIZE
from reference.models.costs import CROP, PAPER, SLICE


def summary() -> None:
    """Print parameters and FLOPs of every model beside those that the paper prints."""
    depth, height, width = PATCH_SIZE
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="One view's FLOPs, two a multiply-add, of convolutions and matrix products: a slice of "
        f"{SLICE}×{SLICE} and a crop of {CROP}×{CROP} pixels; V-Net's patch of {height}×{width}×{depth}.",
    )
    table.add_column("model")
    for column in ("views", "10⁶ param.", "paper", "", "10⁹ FLOPs", "paper", ""):
        table.add_column(column, justify="right", no_wrap=True)
    for number, rows in groupby(PAPER, key=attrgetter("table")):
        table.add_section()
        table.add_row(f"Table {number}")
        for row in rows:
            ours, printed = row.count(), row.printed
            parameters = row.views * ours.parameters
            table.add_row(
                row.model,
                str(row.views),
                f"{parameters / 1e6:.3f}",
                f"{printed.parameters / 1e6:.0f}",
                f"{parameters / printed.parameters - 1:+.1%}",
                f"{ours.flops / 1e9:.1f}",
                f"{printed.flops / 1e9:.0f}",
                f"{ours.flops / printed.flops - 1:+.1%}",
            )
    Console().print(table)
