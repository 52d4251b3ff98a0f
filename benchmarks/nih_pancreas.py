"""Train the coarse-to-fine model with three losses on equal terms, and compare what it then segments.

Equal terms: the same patients, first weights, order of units, crops, epochs and learning rates. Every loss is tested
after its last epoch; the best one in validation could come before the pixel term has entered.

Without `--data` it runs on the phantom of `reference.data`: volumes made up from a seed, to see the whole path work.
Figures of the phantom say nothing about patients, so every line and picture of such a run is marked.
"""

from __future__ import annotations

import json
import math
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich import box
from rich.console import Console, RenderableType
from rich.segment import Segment, Segments
from rich.table import Table

from benchmarks.harness import metadata, write_json
from multilevel_loss import LinearRamp, StepAt
from multilevel_loss.points import uncertain_points
from reference.config import TrainingConfig
from reference.data import Case, SliceUnits, Split, make_phantom, read_image_folder, read_nifti_folder, split_by_patient
from reference.evaluation import dice_score, hausdorff_distance_95, summarize
from reference.history import EpochRecord
from reference.inference import Segmentation, segment
from reference.models import Box, CoarseToFine, bounding_box, build_model, crop
from reference.plots import Overlay, draw_convergence, draw_curves, draw_overlays
from reference.training import train

TERMS = {"region": (False, False), "region+boundary": (True, False), "mll": (True, True)}
"""Loss → whether it has the boundary term, whether it has the pixel term."""

PHANTOMS = 24
CT_WINDOW = (-100.0, 240.0)
VALIDATION, TEST = 0.1, 0.2
SHOWN_CASES, SHOWN_POINTS = 4, 256
SHOWN_ITERATIONS = (0, 1, 2, 3, 5, 10)

Say = Callable[[RenderableType], None]


@dataclass(frozen=True)
class Options:
    """What decides the figures; a resumed run must have the same."""

    data: str | None
    width: int
    size: int
    epochs: int
    learning_rate: float
    seed: int


@dataclass(frozen=True)
class Source:
    """Cases, a heading for pictures and tables, and the unit of distances between voxels."""

    cases: list[Case]
    title: str
    unit: str


@dataclass(frozen=True)
class CaseResult:
    """One test case: the figures of its last iteration, and of each on the way (0 is the coarse model)."""

    name: str
    patient: str
    dsc: float
    hd95: float
    iterations: int | None
    dsc_per_iteration: list[float]
    rdsc_per_iteration: list[float]
    seconds: float


@dataclass(frozen=True)
class LossResult:
    """What one loss came to."""

    history: list[EpochRecord]
    cases: list[CaseResult]

    @property
    def dsc_per_iteration(self) -> list[float]:
        """Mean over the cases."""
        return mean_per_iteration([case.dsc_per_iteration for case in self.cases])

    @property
    def rdsc_per_iteration(self) -> list[float]:
        """Mean over the cases, from iteration 1 on."""
        return mean_per_iteration([case.rdsc_per_iteration for case in self.cases])


def mean_per_iteration(values: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean over cases at each iteration; a case that has stopped keeps its last value."""
    started = [case for case in values if case]
    iterations = max(map(len, started), default=0)
    return [float(np.mean([case[min(t, len(case) - 1)] for case in started])) for t in range(iterations)]


def read_source(data: Path | None, size: int) -> Source:
    """Read the cases of a folder, or draw the phantom's."""
    if data is None:
        cases = [make_phantom(seed, size=size) for seed in range(PHANTOMS)]
        return Source(cases, "PHANTOM: made-up volumes, not patients", "mm")
    if (data / "imagesTr").is_dir():
        return Source(read_nifti_folder(data, window=CT_WINDOW, size=size), data.name, "mm")
    return Source(read_image_folder(data, size=size), f"{data.name}: single slices", "px")


def budget(loss: str, options: Options) -> TrainingConfig:
    """Return the training of one loss: the paper's course squeezed into `epochs`, at this benchmark's learning rate.

    The paper trains 20 epochs of some 20,000 units at 1e-5, from ImageNet weights. A few hundred units and random
    weights need larger steps; every stage begins after the same share of the epochs as in the paper.
    """
    paper = TrainingConfig()
    scale = options.epochs / paper.epochs

    def scaled(epoch: int) -> int:
        return max(1, round(scale * epoch))

    boundary, pixel = TERMS[loss]
    return TrainingConfig(
        epochs=options.epochs,
        joint_epoch=scaled(paper.joint_epoch),
        coarse_box_epoch=scaled(paper.coarse_box_epoch),
        learning_rate=options.learning_rate,
        halving_epoch=scaled(paper.halving_epoch),
        halving_period=scaled(paper.halving_period),
        reset_epoch=scaled(12),
        alpha=LinearRamp(0.0, 1.0, step=0.2 / scale) if boundary else 0.0,
        beta=StepAt(scaled(12)) if pixel else 0.0,
        seed=options.seed,
    )


def evaluate_case(model: CoarseToFine, case: Case) -> tuple[CaseResult, Segmentation]:
    """Segment one case by Algorithm 1 and measure every iteration."""
    dsc_per_iteration: list[float] = []

    def observe(_: int, mask: NDArray[np.bool_]) -> None:
        dsc_per_iteration.append(dice_score(mask, case.label))

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*found no organ")  # The table counts empty predictions.
        segmentation = segment({0: model}, case.intensities(), observe=observe)
    result = CaseResult(
        name=case.name,
        patient=case.patient,
        dsc=dice_score(segmentation.mask, case.label),
        hd95=hausdorff_distance_95(segmentation.mask, case.label, case.spacing),
        iterations=segmentation.iterations,
        dsc_per_iteration=dsc_per_iteration,
        rdsc_per_iteration=segmentation.rdsc,
        seconds=segmentation.seconds,
    )
    return result, segmentation


def overlay(case: Case, segmentation: Segmentation, seed: int) -> Overlay:
    """Return the slice with most organ, and points that the pixel term would draw on its final segmentation."""
    j = int(case.label.sum(axis=(1, 2)).argmax())
    height, width = case.label[j].shape
    area = bounding_box(torch.from_numpy(segmentation.mask[j])) or Box(0, height, 0, width)
    logits = crop(torch.from_numpy(segmentation.probability[j]).logit(eps=1e-6), area)
    generator = torch.Generator().manual_seed(seed)
    points = uncertain_points(logits[None, None], SHOWN_POINTS, generator=generator)[0].double().numpy()
    pixels = np.array([area.left, area.top]) + points * area.size[::-1] - 0.5
    return Overlay(case.intensities(j), case.label[j], segmentation.mask[j], pixels)


def run(options: Options, losses: Sequence[str], out: Path, resume: bool, source: Source, say: Say) -> None:
    """Train and test with every loss, print the tables, write the files."""
    split = split_by_patient(source.cases, validation=VALIDATION, test=TEST, seed=options.seed)
    tested = [case for case in split.test if case.label.any()]
    training, validation = SliceUnits(split.train), SliceUnits(split.validation, keep=1.0)
    say(
        f"{len(training)} slices of {count_patients(split.train)} patients to train on, "
        f"{len(validation)} of {count_patients(split.validation)} to validate, "
        f"{len(tested)} cases of {count_patients(tested)} patients to test"
    )
    results: dict[str, LossResult] = {}
    overlays: dict[str, dict[str, Overlay]] = {
        case.name: {} for case in tested[:: math.ceil(len(tested) / SHOWN_CASES)]
    }
    for loss in losses:
        say(f"training with {loss}")
        model = build_model("mll", width=options.width, generator=torch.Generator().manual_seed(options.seed))
        history = train(model, training, validation, budget(loss, options), out / loss, resume=resume)
        say(f"testing {loss}")
        cases = []
        for case in tested:
            result, segmentation = evaluate_case(model, case)
            cases.append(result)
            if case.name in overlays:
                overlays[case.name][loss] = overlay(case, segmentation, options.seed)
        results[loss] = LossResult(history, cases)
        # Written after every loss, so that an interrupted run has what is there so far.
        write_json(out / "results.json", report(results, split, source, options))
    draw_pictures(results, overlays, source, out)
    say(result_table(results, source))
    say(iteration_table(results, source))
    say(f"results.json, curves.png, convergence.png and overlays.png are in {out}")


def count_patients(cases: Sequence[Case]) -> int:
    """Return how many patients the cases are of."""
    return len({case.patient for case in cases})


def draw_pictures(
    results: Mapping[str, LossResult], overlays: Mapping[str, Mapping[str, Overlay]], source: Source, out: Path
) -> None:
    """Draw training, convergence and a few segmentations."""
    draw_curves(out / "curves.png", {loss: result.history for loss, result in results.items()}, source.title)
    draw_convergence(
        out / "convergence.png",
        {loss: result.dsc_per_iteration for loss, result in results.items()},
        {loss: result.rdsc_per_iteration for loss, result in results.items()},
        source.title,
    )
    draw_overlays(out / "overlays.png", overlays, source.title)


def result_table(results: Mapping[str, LossResult], source: Source) -> Table:
    """Return the comparison, one line a loss."""
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{source.title}. Test cases after the last iteration", title_justify="left"
    )
    table.add_column("loss", no_wrap=True)
    headers = ("DSC %", "min", "max", f"HD95 {source.unit}", "empty", "iterations", "converged", "train s", "test s")
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    for loss, result in results.items():
        dsc = summarize(case.dsc for case in result.cases)
        hd95 = summarize(case.hd95 for case in result.cases)
        converged = [case.iterations for case in result.cases if case.iterations is not None]
        table.add_row(
            loss,
            f"{100 * dsc.mean:.2f} ± {100 * dsc.sd:.2f}",
            f"{100 * dsc.min:.2f}",
            f"{100 * dsc.max:.2f}",
            f"{hd95.mean:.2f} ± {hd95.sd:.2f}" if hd95.count else "–",
            str(hd95.undefined),
            f"{np.mean(converged):.1f}" if converged else "–",
            f"{len(converged)}/{len(result.cases)}",
            f"{sum(record.seconds for record in result.history):.0f}",
            f"{sum(case.seconds for case in result.cases):.0f}",
        )
    return table


def iteration_table(results: Mapping[str, LossResult], source: Source) -> Table:
    """Return DSC and RDSC by iteration, a line each for every loss."""
    table = Table(box=box.SIMPLE_HEAD, title=f"{source.title}. Mean in %, by iteration", title_justify="left")
    table.add_column("loss", no_wrap=True)
    table.add_column("")
    for iteration in SHOWN_ITERATIONS:
        table.add_column(str(iteration) if iteration else "coarse", justify="right")
    for loss, result in results.items():
        for label, name, means, first in (
            (loss, "DSC", result.dsc_per_iteration, 0),
            ("", "RDSC", result.rdsc_per_iteration, 1),
        ):
            shown = [
                "" if t < first or not means else f"{100 * means[min(t - first, len(means) - 1)]:.2f}"
                for t in SHOWN_ITERATIONS
            ]
            table.add_row(label, name, *shown)
    return table


def report(results: Mapping[str, LossResult], split: Split, source: Source, options: Options) -> dict[str, Any]:
    """Return what results.json holds; numbers that are not finite become null."""
    content = {
        "metadata": metadata("opencv-python-headless"),
        "command": shlex.join(sys.argv),
        "options": asdict(options),
        "source": source.title,
        "distance_unit": source.unit,
        "patients": {side: sorted({case.patient for case in cases}) for side, cases in split._asdict().items()},
        "losses": {
            loss: {
                "budget": budget(loss, options).as_dict(),
                "dsc": asdict(summarize(case.dsc for case in result.cases)),
                "hd95": asdict(summarize(case.hd95 for case in result.cases)),
                **asdict(result),
            }
            for loss, result in results.items()
        },
    }
    return dict(_finite(content))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def speak(name: str) -> Say:
    """Return a function that prints with `name` before every line."""
    console = Console(width=max(Console().width, 160), highlight=False)  # The tables are cut in less.
    tag = f"{name} │ "

    def say(message: RenderableType) -> None:
        if isinstance(message, str):  # However long: commands and paths must stay whole.
            typer.echo(tag + message)
            return
        for line in console.render_lines(message, console.options.update(width=console.width - len(tag)), pad=False):
            console.print(Segments([Segment(tag), *line, Segment.line()]), end="")

    return say


def remember(options: Options, out: Path, resume: bool) -> None:
    """Write the options of a new run; refuse to go on with one that had others."""
    path = out / "options.json"
    if not resume:
        write_json(path, asdict(options))
        return
    if not path.is_file():
        raise typer.BadParameter(f"there is no run in {out}", param_hint="--resume")
    before = json.loads(path.read_text())
    changed = [f"{name} {before[name]}" for name, value in asdict(options).items() if value != before[name]]
    if changed:
        raise typer.BadParameter(f"the run in {out} has {', '.join(changed)}", param_hint="--resume")


app = typer.Typer(add_completion=False)


@app.command()
def main(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with images/ and masks/ (2-D, files named PATIENT-N.jpg) or imagesTr/ and labelsTr/ (CT in "
            "NIfTI, label 1). Without it: the phantom.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, results and pictures.")] = Path(
        "runs/nih_pancreas"
    ),
    losses: Annotated[str, typer.Option(help="Losses to compare, separated by commas.")] = ",".join(TERMS),
    width: Annotated[int, typer.Option(min=1, help="Channels of the networks' first block; the paper's: 64.")] = 8,
    size: Annotated[int, typer.Option(min=32, help="Pixels of a slice's longer side; the paper's: 512.")] = 128,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training slices; the paper's: 20.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="Adam's, halved on the way; the paper's: 1e-5.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Decides the split, the first weights and every draw.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
) -> None:
    """Compare region, region+boundary and multi-level loss (mll) on the pancreas, trained and tested alike.

    Prints DSC, HD95 and convergence on the test patients, and writes them and pictures to --out.

    Ctrl-C keeps every finished epoch, and --resume goes on from there; without it, a run in --out is replaced.
    """
    names = losses.split(",")
    unknown = [name for name in names if name not in TERMS]
    if unknown:
        raise typer.BadParameter(f"expected some of {','.join(TERMS)}, got {unknown[0]!r}", param_hint="--losses")
    options = Options(None if data is None else str(data), width, size, epochs, learning_rate, seed)
    remember(options, out, resume)
    say = speak("phantom" if data is None else data.resolve().name)
    try:
        try:
            source = read_source(data, size)
        except (OSError, ValueError) as error:
            raise typer.BadParameter(str(error), param_hint="--data") from error
        run(options, names, out, resume, source, say)
    except KeyboardInterrupt:
        command = shlex.join([part for part in sys.argv if part != "--resume"])
        say(f"interrupted; to go on after the last finished epoch: python {command} --resume")
        raise typer.Exit(130) from None


if __name__ == "__main__":
    app()
