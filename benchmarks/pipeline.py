"""Time testing a volume and a step of training of the worked example, beside the least that the machine allows.

    python -m benchmarks.pipeline [--slices 64] [--rounds 5]

The volume is made up: 512×512×64 voxels and an ellipsoid for an organ, one view. The weights are random, so the boxes
come from the label and every round is gone through; what is computed is what trained weights would compute.

The floor of a time is the FLOPs of its convolutions and matrix products over the rate at which torch multiplies
matrices or convolves here, in the same run and precision, whichever is quicker. Nothing else that is to be done, such
as normalizing or interpolating, is in the floor. MONAI's 2-D UNet, of as many channels as make its FLOPs most like
ours, trains beside ours, in turns.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import measure, metadata, write_json
from reference.config import Precision, TrainingConfig
from reference.data import Unit
from reference.inference import AUTOCAST, segment
from reference.models import CoarseToFine, build_model
from reference.objective import Objective

RESULTS = Path(__file__).parent / "results" / "pipeline.json"
DEPTH, SIDE = 64, 512
SEMIAXES = (20.0, 30.0, 40.0)
"""Of the organ, in voxels: its crops are about as large as the 100×100 pixels with which the paper counts FLOPs."""
PRECISIONS: tuple[Precision, ...] = ("32-true", "bf16-mixed")


def make_volume(depth: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return an image (depth, 512, 512) and its organ, the middle of one of 64 slices where `depth` is less."""
    grid = np.ogrid[:DEPTH, :SIDE, :SIDE]
    squares = [((axis - (axis.size - 1) / 2) / semi) ** 2 for axis, semi in zip(grid, SEMIAXES, strict=True)]
    organ = np.asarray(squares[0] + squares[1] + squares[2] <= 1)
    start = (DEPTH - depth) // 2
    noise = np.random.default_rng(0).random((depth, SIDE, SIDE), dtype=np.float32)
    organ = organ[start : start + depth]
    return 0.5 * noise + 0.3 * organ.astype(np.float32), organ


def matrix_rates(dtype: torch.dtype) -> dict[str, float]:
    """Return FLOPs a second of a matrix product and of two convolutions of the model."""
    left, right = torch.rand(4096, 1024, dtype=dtype), torch.rand(1024, 4096, dtype=dtype)
    features, wide = torch.rand(1, 64, 128, 128, dtype=dtype), torch.rand(1, 256, 64, 64, dtype=dtype)
    weight, wide_weight = torch.rand(64, 64, 3, 3, dtype=dtype), torch.rand(256, 256, 3, 3, dtype=dtype)
    steps: dict[str, Callable[[], Tensor]] = {
        "matrix product": lambda: left @ right,
        "convolution, 64 channels": lambda: F.conv2d(features, weight, padding=1),
        "convolution, 256 channels": lambda: F.conv2d(wide, wide_weight, padding=2, dilation=2),
    }
    with torch.inference_mode():
        timings = measure(steps, repeats=12)
        return {name: flops(step) / timings[name].lower for name, step in steps.items()}


def flops(step: Callable[[], object]) -> int:
    """Return the FLOPs of the convolutions and matrix products of a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


class Witness:
    """Records the shapes that pass the parts of a model, to count their FLOPs without running it again."""

    def __init__(self, model: CoarseToFine) -> None:
        self.shapes: Counter[tuple[str, torch.Size]] = Counter()
        self.seconds = 0.0
        for name in ("coarse", "saliency", "fine"):
            part = model.get_submodule(name)
            part.register_forward_pre_hook(lambda _, inputs, name=name: self._begin(name, inputs[0].shape))
            part.register_forward_hook(lambda *_: self._end())

    def _begin(self, name: str, shape: torch.Size) -> None:
        self.shapes[name, shape] += 1
        self.began = time.perf_counter()

    def _end(self) -> None:
        self.seconds += time.perf_counter() - self.began

    def flops(self, config: dict[str, Any]) -> int:
        """Return the FLOPs of all that passed."""
        with torch.device("meta"), torch.no_grad():
            model = build_model(**config).eval()
            return sum(
                count * flops(lambda name=name, shape=shape: model.get_submodule(name)(torch.empty(shape)))  # type: ignore[misc]
                for (name, shape), count in self.shapes.items()
            )


def time_testing(width: int, slices: int, rounds: int, precision: Precision) -> dict[str, Any]:
    """Test one volume and return its time, the FLOPs and the floor."""
    model = build_model("mll", width=width, generator=torch.Generator().manual_seed(0))
    image, organ = make_volume(slices)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*found no organ")  # Random weights may find none.
        segment({0: model}, image[:2], organ=organ[:2], tmax=1, precision=precision)
    before = matrix_rates(AUTOCAST[precision] or torch.float32)
    witness = Witness(model)
    found = segment({0: model}, image, organ=organ, tmax=rounds, tol=math.inf, precision=precision)
    after = matrix_rates(AUTOCAST[precision] or torch.float32)
    rates = {name: max(rate, after[name]) for name, rate in before.items()}
    count = witness.flops(model.config)
    floor = count / max(rates.values())
    crops = [shape for (name, shape), number in witness.shapes.items() if name == "fine" for _ in range(number)]
    return {
        "precision": precision,
        "slices": slices,
        "rounds": rounds,
        "seconds": found.seconds,
        "seconds_per_round": found.seconds_per_round,
        "seconds_in_networks": witness.seconds,
        "crops": len(crops),
        "mean_crop": [float(np.mean([shape[axis] for shape in crops])) for axis in (2, 3)],
        "flops": count,
        "flops_per_second": rates,
        "floor_seconds": floor,
        "times_floor": found.seconds / floor,
        **({} if slices == DEPTH else {"scaled_to_64_slices_seconds": found.seconds * DEPTH / slices}),
    }


def like_unet(target: int) -> UNet:
    """Return MONAI's 2-D UNet of the channels that bring the FLOPs of a slice closest to `target`."""

    def build(channels: int) -> UNet:
        widths = [channels * 2**level for level in range(5)]
        return UNet(spatial_dims=2, in_channels=3, out_channels=3, channels=widths, strides=[2] * 4, num_res_units=2)

    def distance(channels: int) -> int:
        with torch.device("meta"), torch.no_grad():
            network = build(channels)
            return abs(flops(lambda: network(torch.empty(1, 3, SIDE, SIDE))) - target)

    return build(min(range(8, 129, 8), key=distance))


def time_training(width: int, repeats: int, precision: Precision) -> dict[str, Any]:
    """Time a step of ours, with all terms of the loss, and one of a UNet of like FLOPs."""
    torch.manual_seed(0)
    image, organ = make_volume(3)
    unit = Unit(
        image=torch.from_numpy(image)[None],
        label=torch.from_numpy(organ.astype(np.float32))[None],
        spacing=torch.ones(1, 2),
    )
    generator = torch.Generator().manual_seed(0)
    objective = Objective(build_model("mll", width=width, generator=generator), TrainingConfig(alpha=1.0, beta=1.0))
    objective.set_epoch(0)
    with torch.no_grad():
        inference = flops(lambda: objective.model(unit["image"], unit["label"], stage="I"))
    unet, unet_loss = like_unet(inference), DiceCELoss(sigmoid=True)
    networks: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
        # Stage I has the label's box, which random weights have not: the paper's crop.
        "ours": (objective, lambda: objective(unit, stage="I", jitter=None, points=generator)[0]),
        "MONAI UNet": (unet, lambda: unet_loss(unet(unit["image"]), unit["label"])),
    }
    rates = matrix_rates(AUTOCAST[precision] or torch.float32)
    steps = {name: training_step(network, loss, precision) for name, (network, loss) in networks.items()}
    timings = measure(steps, repeats=repeats, warmup=1)
    later = matrix_rates(AUTOCAST[precision] or torch.float32)
    rate = max(*rates.values(), *later.values())
    report: dict[str, Any] = {"precision": precision}
    for name, step in steps.items():
        count = flops(step)
        report[name] = {
            "parameters": sum(parameter.numel() for parameter in networks[name][0].parameters()),
            "flops": count,
            "seconds": asdict(timings[name]),
            "floor_seconds": count / rate,
            "times_floor": timings[name].median * rate / count,
        }
    return report


def training_step(network: nn.Module, loss: Callable[[], Tensor], precision: Precision) -> Callable[[], None]:
    """Return one step of Adam."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-5, fused=True)
    dtype = AUTOCAST[precision]

    def step() -> None:
        optimizer.zero_grad()
        with nullcontext() if dtype is None else torch.autocast("cpu", dtype):
            value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def time_layouts(width: int) -> dict[str, float]:
    """Return the seconds a slice of the coarse model in each layout and precision."""
    model = build_model("mll", width=width).eval()
    image = torch.rand(1, 3, SIDE, SIDE)
    steps = {}
    for precision in PRECISIONS:
        for name, layout in (("contiguous", torch.contiguous_format), ("channels last", torch.channels_last)):
            laid = copy.deepcopy(model).to(memory_format=layout)  # type: ignore[call-overload]

            def step(model: CoarseToFine = laid, dtype: torch.dtype | None = AUTOCAST[precision]) -> None:
                with torch.inference_mode(), nullcontext() if dtype is None else torch.autocast("cpu", dtype):
                    model.coarse_logits(image)

            steps[f"{name}, {precision}"] = step
    return {name: timing.median for name, timing in measure(steps, repeats=5, warmup=1).items()}


def main(
    slices: Annotated[
        int, typer.Option(min=4, max=DEPTH, help="Slices to test; of fewer than 64, the time is scaled, and marked so.")
    ] = DEPTH,
    rounds: Annotated[int, typer.Option(min=1, help="Of the fine model; the paper's model needs 4.29.")] = 5,
    width: Annotated[int, typer.Option(min=1, help="Channels of the first block; the paper's: 64.")] = 64,
    repeats: Annotated[int, typer.Option(min=1, help="Steps of training to time.")] = 5,
    out: Annotated[Path, typer.Option(help="Where the results go.")] = RESULTS,
) -> None:
    """Print times and floors, and write them to a JSON file."""
    torch.set_flush_denormal(True)
    circumstances = metadata("monai", device=torch.device("cpu"))
    report: dict[str, Any] = {"metadata": circumstances, "width": width, "testing": [], "training": []}
    for precision in PRECISIONS:
        report["testing"].append(time_testing(width, slices, rounds, precision))
        report["training"].append(time_training(width, repeats, precision))
    report["coarse_seconds_a_slice"] = time_layouts(width)
    write_json(out, report)
    show(report)


def show(report: dict[str, Any]) -> None:
    """Print the report."""
    table = Table("what", "precision", "seconds", "floor", "× floor", "10⁹ FLOPs")
    for row in report["testing"]:
        what = f"testing 512×512×{row['slices']}, one view, {row['rounds']} rounds"
        scaled = row.get("scaled_to_64_slices_seconds")
        seconds = f"{row['seconds']:.1f}" + (f" (scaled to 64 slices: {scaled:.0f})" if scaled else "")
        table.add_row(what, row["precision"], seconds, *_floor(row))
    for row in report["training"]:
        for name in ("ours", "MONAI UNet"):
            step = row[name]
            table.add_row(f"training step, {name}", row["precision"], f"{step['seconds']['median']:.2f}", *_floor(step))
    console = Console(width=140)
    console.print(table)
    for name, seconds in report["coarse_seconds_a_slice"].items():
        console.print(f"coarse model, {name}: {seconds:.3f} s a slice")


def _floor(row: dict[str, Any]) -> tuple[str, str, str]:
    return f"{row['floor_seconds']:.2f}", f"{row['times_floor']:.2f}", f"{row['flops'] / 1e9:.0f}"


if __name__ == "__main__":
    typer.run(main)
