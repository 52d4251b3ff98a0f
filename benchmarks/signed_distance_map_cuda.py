"""Time signed distance maps on a GPU beside cupyx (PBA+) and beside copying the result.

    python -m benchmarks.signed_distance_map_cuda [--out FILE]

Every map is first compared with that of the CPU, so no figure comes from a wrong one. "graph" replays the call from a
CUDA graph, as the copy is: it is the time on the GPU alone, without that of launching from Python.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.harness import Timing, measure, metadata, peak_memory, write_json
from multilevel_loss.distance import signed_distance_map

ORGAN = 0.015  # of the image


@dataclass(frozen=True)
class Case:
    """A label map (batch, *sides) with one ellipsoid for each class but the background."""

    batch: int
    sides: tuple[int, ...]
    num_classes: int | None = None

    @property
    def name(self) -> str:
        """Return the heading of its row."""
        sides = "×".join(map(str, self.sides))
        return f"{self.batch}×{sides}" if self.num_classes is None else f"{self.num_classes} classes × {sides}"

    def target(self) -> Tensor:
        """Return the labels, int64."""
        generator = torch.Generator().manual_seed(0)
        labels = torch.zeros(self.batch, *self.sides, dtype=torch.int64)
        axes = torch.meshgrid([(torch.arange(side) + 0.5) / side for side in self.sides], indexing="ij")
        # Semi-axes as fractions of the sides: the volume of a disc or ball of radius r is π r² or 4/3 π r³.
        radius = (ORGAN / torch.pi) ** 0.5 if len(self.sides) == 2 else (ORGAN * 0.75 / torch.pi) ** (1 / 3)
        for sample in labels:
            for label in range(1, self.num_classes or 2):
                centre = 0.2 + 0.6 * torch.rand(len(axes), generator=generator)
                squares = [(axis - middle) ** 2 for axis, middle in zip(axes, centre, strict=True)]
                sample[sum(squares) < radius**2] = label
        return labels


CASES = [Case(8, (512, 512)), Case(2, (128,) * 3), Case(1, (512, 512, 64)), Case(1, (160,) * 3, num_classes=14)]


def main(out: Annotated[Path | None, typer.Option(help="JSON file to write the figures to.")] = None) -> None:
    """Compare, time, and print."""
    if not torch.cuda.is_available():
        sys.exit("signed_distance_map_cuda: no CUDA device here, so nothing was measured")
    try:
        from cupyx.scipy.ndimage import distance_transform_edt
    except ImportError:
        sys.exit("signed_distance_map_cuda: cupy is not installed (pip install cupy-cuda12x), so nothing was measured")
    table = Table("case", "ours ms", "graph ms", "cupyx ms", "copy ms", "cupyx / ours", "graph / copy", "peak / output")
    results: dict[str, Any] = {}
    for case in CASES:
        timings, memory = _run(case, distance_transform_edt)
        results[case.name] = {name: asdict(timing) for name, timing in timings.items()} | {"peak_over_output": memory}
        table.add_row(case.name, *_row(timings), f"{memory:.2f}")
    Console().print(table)
    if out is not None:
        write_json(out, {**metadata("triton", device=torch.device("cuda")), "seconds": results})


def _run(case: Case, transform: Callable[..., Any]) -> tuple[dict[str, Timing], float]:
    target = case.target()
    expected = signed_distance_map(target, num_classes=case.num_classes)
    target = target.cuda()

    def ours() -> Tensor:
        return signed_distance_map(target, num_classes=case.num_classes)

    distance = ours()
    torch.testing.assert_close(distance.cpu(), expected, rtol=0, atol=0)
    inside = distance <= 0  # the same masks for the peer, made beforehand

    def peer() -> list[Any]:
        return [_signed_by_cupyx(mask, transform) for mask in inside.flatten(0, 1)]

    for ours_one, peer_one in zip(distance.flatten(0, 1), peer(), strict=True):
        torch.testing.assert_close(torch.as_tensor(peer_one, device="cuda"), ours_one, rtol=1e-6, atol=1e-5)
    copied = torch.empty_like(distance)
    steps = {"ours": ours, "graph": _captured(ours), "cupyx": peer, "copy": _captured(lambda: copied.copy_(distance))}
    timings = measure(steps, repeats=50, warmup=5)
    memory = peak_memory(ours, distance.device)
    return timings, (memory or 0) / distance.nbytes


def _captured(step: Callable[[], object]) -> Callable[[], object]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _signed_by_cupyx(inside: Tensor, transform: Callable[..., Any]) -> Any:
    import cupy

    mask = cupy.asarray(inside)
    interior = mask.copy()
    for axis in range(mask.ndim):
        before, after = ([slice(None)] * axis + [part] for part in (slice(None, -1), slice(1, None)))
        interior[(*before,)] &= mask[(*after,)]
        interior[(*after,)] &= mask[(*before,)]
    distance = transform(~mask | interior, float64_distances=False)
    return cupy.where(mask, -distance, distance)


def _row(timings: dict[str, Timing]) -> list[str]:
    ours, graph, peer, copy = (timings[name].median * 1e3 for name in ("ours", "graph", "cupyx", "copy"))
    return [f"{value:.3f}" for value in (ours, graph, peer, copy)] + [f"{peer / ours:.1f}×", f"{graph / copy:.1f}×"]


if __name__ == "__main__":
    typer.run(main)
