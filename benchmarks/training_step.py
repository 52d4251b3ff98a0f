"""Time a step of training of MONAI's networks, and the share of it that the multi-level loss takes.

    python -m benchmarks.training_step [--device cuda]

A step is forward, loss, backward and an update by Adam; the distance maps are computed in it. The network and each
loss, ours and those of MONAI and torch, are timed by themselves, in turns: a step takes what the network and a loss
take.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from monai.networks.nets import BasicUNet, DynUNet
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.harness import Timing, measure, metadata, write_json
from benchmarks.losses import Case, Loss, make_case, makers_of

RESULTS = Path(__file__).parent / "results" / "training_step.json"
Precision = Literal["bfloat16", "float16", "float32"]
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "BasicUNet": BasicUNet,
    "DynUNet": lambda **options: DynUNet(
        **options, kernel_size=[3] * 6, strides=[1, *[2] * 5], upsample_kernel_size=[2] * 5
    ),
}
LOSSES = {
    "MLLoss": ("MLLoss", "ours"),
    "DiceCELoss": ("DiceCELoss", "ours"),
    "DiceCELoss of MONAI": ("DiceCELoss", "MONAI"),
    "terms of MLLoss of MONAI and torch": ("MLLoss", "MONAI + torch"),
}
"""Losses, and where they stand in the table of `benchmarks.losses`."""


@dataclass(frozen=True)
class Row:
    """A loss beside a network: seconds of the loss alone, forward and backward, and of the rest of a step."""

    network: str
    parameters: int
    loss: str
    timing: Timing
    rest: Timing

    @property
    def share(self) -> float:
        """The part of a whole step that the loss takes."""
        return self.timing.median / (self.timing.median + self.rest.median)


def step_without_loss(network: nn.Module, case: Case, dtype: torch.dtype) -> Callable[[], None]:
    """Return a step of training whose gradient of the logits is given."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-5, fused=True)
    slope = torch.full_like(case.logits, 1 / case.logits.numel())

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(case.image.device.type, dtype, enabled=dtype != torch.float32):
            logits = network(case.image)
        logits.backward(slope.to(logits.dtype))
        optimizer.step()

    return step


def time_steps(network: str, case: Case, dtype: torch.dtype, repeats: int) -> list[Row]:
    """Time a network and every loss in turns."""
    channels = case.logits.shape[1]
    built = NETWORKS[network](spatial_dims=case.ndim, in_channels=1, out_channels=channels).to(case.image.device)
    logits = case.logits.detach().to(dtype).requires_grad_()

    def step_of(loss: Loss, maker: str) -> Callable[[], object]:
        # Those of others get float32: in half precision some do not compute, and others lose a sum of many voxels.
        return lambda: torch.autograd.grad(loss(logits if maker == "ours" else logits.float()), logits)

    rest = step_without_loss(built, case, dtype)
    steps = {name: step_of(makers_of(row, case)[maker][0], maker) for name, (row, maker) in LOSSES.items()}
    timings = measure({network: rest, **steps}, repeats, warmup=1)
    parameters = sum(parameter.numel() for parameter in built.parameters())
    return [Row(network, parameters, name, timings[name], timings[network]) for name in steps]


def table_of(rows: list[Row], title: str) -> Table:
    """Return the rows as a table."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for header in ("network", "loss", "network, ms", "loss, ms", "quartiles", "share of the step"):
        table.add_column(header, justify="left" if header in ("network", "loss") else "right", no_wrap=True)
    for row in rows:
        own = row.timing
        quartiles = f"{1e3 * own.lower:.1f}–{1e3 * own.upper:.1f}"
        seconds = (f"{1e3 * row.rest.median:.0f}", f"{1e3 * own.median:.1f}")
        table.add_row(row.network, row.loss, *seconds, quartiles, f"{100 * row.share:.2f} %")
    return table


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    shape: Annotated[str, typer.Option(help="Of the images: B x 1 x spatial.")] = "2x1x128x128x128",
    classes: Annotated[int, typer.Option(min=2, help="Channels of the logits, background included.")] = 2,
    precision: Annotated[Precision, typer.Option(help="Of the autocast network.")] = "bfloat16",
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    threads: Annotated[int, typer.Option(min=1)] = torch.get_num_threads(),
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="The JSON file to write.")] = RESULTS,
) -> None:
    """Measure, print a table and write JSON."""
    torch.set_num_threads(threads)
    on = torch.device(device)
    circumstances = metadata("monai", device=on)
    batch, _, *spatial = shape.split("x")
    case = make_case("x".join([batch, str(classes), *spatial]), on)
    rows = [row for network in NETWORKS for row in time_steps(network, case, getattr(torch, precision), repeats)]
    Console(width=140, highlight=False).print(table_of(rows, f"{shape}, {classes} classes, {precision}"))
    content: dict[str, Any] = {"metadata": circumstances, "shape": shape, "classes": classes, "precision": precision}
    write_json(out, content | {"rows": [asdict(row) | {"share": row.share} for row in rows]})


if __name__ == "__main__":
    app()
