"""Time signed distance maps on the CPU beside SciPy, edt, SimpleITK and OpenCV.

    python -m benchmarks.signed_distance_map [--quick]

Every maker computes the same maps, float32, from the mask in the form it is quickest with, made before the clock
starts; all of a case take turns in one process. A map is compared with SciPy's before any is timed. SimpleITK is
favoured: its filter counts voxels with a diagonal neighbour outside as boundary, so its map is compared outside D
alone, and neither what would make it ours inside nor the copy to an array is in its time.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import cv2
import edt
import matplotlib.pyplot as plt
import numpy as np
import SimpleITK
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.ndimage import distance_transform_edt

from benchmarks.harness import Timing, measure, metadata, peak_memory, write_json
from multilevel_loss.distance import signed_distance_map

RESULTS = Path(__file__).parent / "results"
CPU = torch.device("cpu")
OURS = "ours"
ORGAN = {2: 0.01, 3: 0.015}
"""What an organ takes of a slice and of a volume."""

Mask = NDArray[np.bool_]
Map = NDArray[np.float32]
Step = Callable[[], Sequence[Any]]
"""Returns one map for each mask."""


@dataclass(frozen=True)
class Case:
    """Masks (C, *spatial) of one image; `masks` has one of a binary image, else one a class."""

    name: str
    masks: Callable[[], Mask]
    spacing: tuple[float, ...] | None = None
    repeats: int = 15


def grid(sides: Sequence[int]) -> tuple[NDArray[np.float64], ...]:
    """Return the coordinates of voxel centers, of the image's sides as 1."""
    return np.meshgrid(*[(np.arange(side) + 0.5) / side for side in sides], indexing="ij", sparse=True)


def ball(sides: Sequence[int], radius: float, center: Sequence[float] | None = None) -> Mask:
    """Return an ellipsoid with dents, its mean radius in units of the image's sides."""
    axes = [axis - middle for axis, middle in zip(grid(sides), center or [0.45] * len(sides), strict=True)]
    dents = 1 + 0.25 * np.sin(5 * np.arctan2(axes[-1], axes[-2]))
    return np.asarray(sum(axis**2 for axis in axes) < (radius * dents) ** 2)


def organ(*sides: int) -> Mask:
    """Return one small organ."""
    part = ORGAN[len(sides)]
    radius = (part / np.pi) ** 0.5 if len(sides) == 2 else (part * 0.75 / np.pi) ** (1 / 3)
    return ball(sides, radius)[None]


def organs(*sides: int, num_classes: int = 14) -> Mask:
    """Return the background and organs that share the image."""
    random = np.random.default_rng(0)
    labels = np.zeros(sides, np.uint8)
    for label in range(1, num_classes):
        labels[ball(sides, 0.12, random.uniform(0.15, 0.85, len(sides)).tolist())] = label
    return np.asarray(labels == np.arange(num_classes).reshape(-1, *[1] * len(sides)))


def noise(*sides: int, density: float = 0.5) -> Mask:
    """Return independent voxels."""
    return np.asarray(np.random.default_rng(0).random((1, *sides)) < density)


def box(*sides: int) -> Mask:
    """Return a ball that touches every side of the image."""
    return ball(sides, 0.4, [0.5] * len(sides))[None]


def voxels(*sides: int, corners: bool = False) -> Mask:
    """Return one voxel, in the middle, or two in opposite corners."""
    mask = np.zeros((1, *sides), np.bool_)
    if corners:
        mask[(0, *[0] * len(sides))] = mask[(0, *[-1] * len(sides))] = True
    else:
        mask[(0, *[side // 2 for side in sides])] = True
    return mask


CASES = [
    Case("organ, 192×192×96", partial(organ, 192, 192, 96), repeats=11),
    Case("organ, 512×512×64", partial(organ, 512, 512, 64), repeats=5),
    Case("organ, 512×512", partial(organ, 512, 512), repeats=25),
    Case("organ, 192×192×96, in mm", partial(organ, 192, 192, 96), (1.25, 0.8, 0.8), repeats=9),
    Case("organ, 512×512, in mm", partial(organ, 512, 512), (0.8, 0.7), repeats=15),
    Case("14 classes, 96×96×96", partial(organs, 96, 96, 96), repeats=5),
    Case("14 classes, 512×512", partial(organs, 512, 512), repeats=21),
    Case("ball as large as the image, 128×128×128", partial(box, 128, 128, 128), repeats=11),
    Case("ball as large as the image, 512×512", partial(box, 512, 512), repeats=15),
    Case("noise, 128×128×128", partial(noise, 128, 128, 128), repeats=11),
    Case("noise, 512×512", partial(noise, 512, 512), repeats=15),
    Case("sparse noise, 128×128×128", partial(noise, 128, 128, 128, density=0.001), repeats=11),
    Case("sparse noise, 512×512", partial(noise, 512, 512, density=0.001), repeats=15),
    Case("1 voxel, 128×128×128", partial(voxels, 128, 128, 128), repeats=11),
    Case("1 voxel, 512×512", partial(voxels, 512, 512), repeats=15),
    Case("2 corners, 128×128×128", partial(voxels, 128, 128, 128, corners=True), repeats=11),
    Case("2 corners, 512×512", partial(voxels, 512, 512, corners=True), repeats=15),
]
GROWTH = {
    2: [Case(f"{side}²", partial(organ, side, side), repeats=7) for side in (64, 128, 256, 512, 1024, 2048)],
    3: [Case(f"{side}³", partial(organ, side, side, side), repeats=5) for side in (32, 48, 64, 96, 128, 192)],
}

FIRST_CALLS = """
import time
import torch
from multilevel_loss import signed_distance_map
mask = torch.zeros(1, 64, 64, 64, dtype=torch.bool)
mask[:, 20:30, 20:40, 30:35] = True
for spacing in (None, 0.7):
    start = time.perf_counter()
    signed_distance_map(mask, spacing=spacing)
    print(time.perf_counter() - start)
"""


def boundary(mask: Mask) -> Mask:
    """Return the voxels of D with a face neighbour outside."""
    interior = mask.copy()
    for axis in range(mask.ndim):
        before, after = (tuple([slice(None)] * axis + [part]) for part in (slice(None, -1), slice(1, None)))
        interior[before] &= mask[after]
        interior[after] &= mask[before]
    return mask & ~interior


def signed(distance: NDArray[np.float32 | np.float64], mask: Mask) -> Map:
    """Return float32 distances, negative in the mask."""
    result = distance.astype(np.float32, copy=False)
    return np.negative(result, out=result, where=mask)


def by_scipy(mask: Mask, spacing: Sequence[float] | None) -> Map:
    """Compute one map with SciPy."""
    return signed(distance_transform_edt(~boundary(mask), sampling=spacing), mask)


def by_edt(mask: Mask, spacing: Sequence[float] | None, *, threads: int) -> Map:
    """Compute one map with edt."""
    away = ~boundary(mask)
    return signed(edt.edt(away, anisotropy=spacing or (1.0,) * mask.ndim, parallel=threads), mask)


def by_simpleitk(image: Any, spacing: Sequence[float] | None) -> Any:
    """Compute one map with SimpleITK, in its own sense inside D."""
    transform: Callable[..., Any] = SimpleITK.SignedMaurerDistanceMap
    return transform(image, squaredDistance=False, useImageSpacing=spacing is not None)


def as_simpleitk(mask: Mask, spacing: Sequence[float] | None) -> Any:
    """Return the mask as an image."""
    image: Any = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    if spacing is not None:
        image.SetSpacing(spacing[::-1])
    return image


def by_opencv(mask: NDArray[np.uint8], spacing: Sequence[float] | None) -> Map:
    """Compute one map with OpenCV."""
    interior = cv2.erode(mask, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    away = np.equal(mask, interior).view(np.uint8)
    return signed(np.asarray(cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)), mask.view(np.bool_))


def makers(masks: Mask, spacing: tuple[float, ...] | None) -> dict[str, Step]:
    """Return who can make the maps of a case, each with its input."""
    if len(masks) == 1:
        target, num_classes = torch.from_numpy(masks), None
    else:
        target, num_classes = torch.from_numpy(masks.argmax(0)[None].astype(np.uint8)), len(masks)

    def ours() -> Sequence[Map]:
        return list(signed_distance_map(target, num_classes=num_classes, spacing=spacing)[0].numpy())

    images = [as_simpleitk(mask, spacing) for mask in masks]
    result: dict[str, Step] = {
        OURS: ours,
        "SciPy": lambda: [by_scipy(mask, spacing) for mask in masks],
        "edt": lambda: [by_edt(mask, spacing, threads=1) for mask in masks],
        "edt, threaded": lambda: [by_edt(mask, spacing, threads=torch.get_num_threads()) for mask in masks],
        "SimpleITK": lambda: [by_simpleitk(image, spacing) for image in images],
    }
    if masks.ndim == 3 and spacing is None:
        result["OpenCV"] = lambda: [by_opencv(mask, spacing) for mask in masks.view(np.uint8)]
    return result


def check(masks: Mask, steps: dict[str, Step]) -> None:
    """Raise AssertionError unless all make the map that SciPy makes."""
    truth = steps["SciPy"]()
    for name, step in steps.items():
        for mask, expected, distance in zip(masks, truth, step(), strict=True):
            where: Any = ...
            if name == "SimpleITK":
                where, distance = ~mask, SimpleITK.GetArrayFromImage(distance)
            np.testing.assert_allclose(distance[where], expected[where], rtol=1e-5, atol=1e-5, err_msg=name)


def run(case: Case, quick: bool) -> dict[str, Any]:
    """Check and time one case."""
    masks = case.masks()
    steps = makers(masks, case.spacing)
    check(masks, steps)
    calls = {name: calls_a_turn(step) for name, step in steps.items()}
    turns = {name: partial(repeat, steps[name], calls[name]) for name in steps}
    timings = measure(turns, repeats=1 if quick else case.repeats, warmup=1)
    timing = {name: asdict(per_call(timings[name], calls[name])) for name in steps}
    return {"case": case.name, "voxels": masks.size, "output": masks.size * 4, "timing": timing}


def calls_a_turn(step: Step) -> int:
    """Return how many calls last for some 20 ms: one alone would time what others left in the caches."""
    step()
    start = time.perf_counter()
    step()
    return max(1, round(0.02 / (time.perf_counter() - start)))


def repeat(step: Step, calls: int) -> None:
    """Call `step` several times."""
    for _ in range(calls):
        step()


def per_call(timing: Timing, calls: int) -> Timing:
    """Return the timing of one call of several."""
    return Timing(timing.median / calls, timing.lower / calls, timing.upper / calls, timing.repeats)


def memory(case: Case) -> dict[str, int | None]:
    """Return the bytes that each maker needs at once, its output included; None where that cannot be told."""
    steps = makers(case.masks(), case.spacing)
    for step in steps.values():
        step()
    return {name: peak_memory(step, CPU) for name, step in steps.items()}


def first_calls(number: int) -> dict[str, list[float]]:
    """Return the seconds of first calls, each in a new process with nothing compiled, in voxels and then in mm."""
    result: dict[str, list[float]] = {"voxels": [], "mm": []}
    for _ in range(number):
        with TemporaryDirectory() as folder:
            environment = os.environ | {"NUMBA_CACHE_DIR": folder}
            command = [sys.executable, "-c", FIRST_CALLS]
            printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout  # noqa: S603
        for seconds, value in zip(result.values(), printed.split(), strict=True):
            seconds.append(float(value))
    return result


def milliseconds(row: dict[str, Any]) -> dict[str, float]:
    """Return the medians of a row."""
    return {name: 1e3 * Timing(**timing).median for name, timing in row["timing"].items()}


def summary(row: dict[str, Any]) -> list[str]:
    """Return a line of the table."""
    times = milliseconds(row)
    ours = times.pop(OURS)
    fastest = min(times, key=times.__getitem__)
    cells = [f"{time:.3g}" if time < 1000 else f"{time:.0f}" for time in (ours, times["SciPy"])]
    cells += [f"{min(times['edt'], times['edt, threaded']):.3g}", f"{times['SimpleITK']:.3g}"]
    cells += [f"{times['OpenCV']:.3g}" if "OpenCV" in times else "", fastest, f"{times[fastest] / ours:.1f}"]
    peak = row["peak"][OURS]
    return [row["case"], *cells, f"{times['SciPy'] / ours:.1f}", "" if peak is None else f"{peak / row['output']:.2f}"]


HEADER = [
    "case",
    "ours",
    "SciPy",
    "edt",
    "SimpleITK",
    "OpenCV",
    "fastest peer",
    "peer ÷ ours",
    "SciPy ÷ ours",
    "memory",
]


def draw(growth: dict[int, list[dict[str, Any]]], path: Path) -> None:
    """Draw time over voxels, both logarithmic, with a line of slope 1."""
    figure, panels = plt.subplots(1, len(growth), figsize=(8, 3.4), sharey=True, layout="constrained")
    for panel, (ndim, rows) in zip(panels, growth.items(), strict=True):
        sizes = [row["voxels"] for row in rows]
        for name in rows[0]["timing"]:
            times = [milliseconds(row)[name] for row in rows]
            panel.loglog(sizes, times, "o-", label=name, linewidth=2.2 if name == OURS else 1, markersize=3)
        last = milliseconds(rows[-1])[OURS]
        panel.loglog(sizes, [last * size / sizes[-1] for size in sizes], "k:", linewidth=0.8, label="linear")
        panel.set_title(f"one organ in {ndim}-D", fontsize=9)
        panel.set_xlabel("voxels")
        panel.legend(fontsize=7)
    panels[0].set_ylabel("ms")
    figure.savefig(path, dpi=130)


def main(
    quick: Annotated[bool, typer.Option("--quick", help="One repeat of each case, nothing written.")] = False,
    only: Annotated[str, typer.Option(help="Run only the cases whose name holds this; nothing written.")] = "",
) -> None:
    """Compare, time, print, and write `results/signed_distance_map.json`, `.csv` and `.png`."""
    published = not (quick or only)
    first = first_calls(5) if published else {}
    cases = [case for case in CASES if only in case.name]
    rows = [run(case, quick) for case in cases]
    growth = {ndim: [run(case, quick) for case in GROWTH[ndim] if not only] for ndim in GROWTH}
    for case, row in zip(cases, rows, strict=True):  # last, since it makes later allocations slow
        row["peak"] = memory(case)
    table = Table(*HEADER, title="signed distance maps, median ms; memory as multiples of the output")
    for row in rows:
        table.add_row(*summary(row))
    console = Console(width=160)
    console.print(table)
    for unit, seconds in first.items():
        console.print(f"first call in {unit}, nothing compiled: {', '.join(f'{value:.1f}' for value in seconds)} s")
    if not published:
        return
    circumstances = metadata("numba", "edt", "SimpleITK", "opencv-python-headless", device=CPU)
    content = {"metadata": circumstances, "rows": rows, "growth": growth, "first_call_seconds": first}
    write_json(RESULTS / "signed_distance_map.json", content)
    write_csv(RESULTS / "signed_distance_map.csv", [HEADER, *map(summary, rows)])
    draw(growth, RESULTS / "signed_distance_map.png")


def write_csv(path: Path, lines: Iterable[Sequence[str]]) -> None:
    """Write the table."""
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


if __name__ == "__main__":
    typer.run(main)
