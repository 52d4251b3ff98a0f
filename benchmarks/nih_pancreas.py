"""Train the coarse-to-fine model with several losses on equal terms, and compare what it then segments.

    python benchmarks/nih_pancreas.py                      # phantom volumes, three views, in minutes
    python benchmarks/nih_pancreas.py --data NIH           # the paper's protocol: four folds, three views
    python benchmarks/nih_pancreas.py merge A B --out ALL  # runs of several folds, seeds or machines in one table

Equal terms: the same patients, first weights, order of units, crops, epochs and learning rates. Every loss is tested
after its last epoch; the best one in validation could come before the pixel term has entered.

It is the commands of `python -m reference`, one after the other: prepare, train for each fold and loss, evaluate.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast

import torch
import typer

from benchmarks.harness import metadata, write_json
from multilevel_loss import LinearRamp, StepAt
from reference.commands.evaluate import evaluate
from reference.commands.prepare import prepare
from reference.commands.train import train_run
from reference.config import CONFIG, VIEWS, RunConfig, TrainingConfig, View
from reference.data import make_phantom, read_store
from reference.data.store import find_cases, read_record, write_case
from reference.history import JSON
from reference.models import ModelName
from reference.ranks import choose_device
from reference.report import measure, read_records, write_tables
from reference.runs import read_run
from reference.testing import EvaluationConfig, record_of

LOSSES = {"region": (False, False), "region+boundary": (True, False), "mll": (True, True)}
"""Loss of the MLL model → whether it has the boundary term, whether it has the pixel term."""

PHANTOMS, PHANTOM_SIZE, PHANTOM_DEPTH = 12, 64, 16
PHANTOM_WIDTH, PHANTOM_EPOCHS, PHANTOM_RATE = 8, 5, 1e-3
RESULTS = "results.json"


def budget(loss: str, model: ModelName, epochs: int, learning_rate: float, seed: int) -> TrainingConfig:
    """Return the training of one loss: the paper's course for the model, squeezed or stretched to `epochs`.

    Every stage begins after the same share of the epochs as in the paper.
    """
    paper = TrainingConfig.paper(model)
    scale = epochs / paper.epochs

    def scaled(epoch: int) -> int:
        return max(1, round(scale * epoch))

    boundary, pixel = LOSSES[loss] if model == "mll" else (paper.alpha != 0, paper.beta != 0)
    ramp = paper.alpha if isinstance(paper.alpha, float) else LinearRamp(0.0, 1.0, step=0.2 / scale)
    return TrainingConfig(
        epochs=epochs,
        joint_epoch=scaled(paper.joint_epoch),
        coarse_box_epoch=scaled(paper.coarse_box_epoch),
        learning_rate=learning_rate,
        halving_epoch=scaled(paper.halving_epoch),
        halving_period=scaled(paper.halving_period),
        reset_epoch=scaled(12),
        alpha=ramp if boundary else 0.0,
        beta=StepAt(scaled(12)) if pixel else 0.0,
        gamma=StepAt(scaled(12)) if model == "mln" else 0.0,
        seed=seed,
    )


def make_store(data: Path | None, out: Path, size: int | None) -> Path:
    """Return a store of the phantom, or of a data set; one that is already a store is taken as it is."""
    if data is not None and find_cases(data):
        return data
    # Tables and pictures take its name.
    store = out / "store" / ("phantom" if data is None else data.resolve().name)
    if data is not None:
        prepare(data, store, size=size)
        return store
    for seed in range(PHANTOMS):
        case = make_phantom(seed, size=size or PHANTOM_SIZE, depth=PHANTOM_DEPTH)
        write_case(store, case, {"layout": "phantom", "sources": []})
    return store


def choose(option: str, text: str | None, known: Sequence[str], default: Sequence[str]) -> list[str]:
    """Return the names that an option lists, or the default ones."""
    names = list(default) if text is None else text.split(",")
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"expected some of {','.join(known)}, got {name!r}", param_hint=option)
    return names


def write_results(out: Path, runs: Sequence[Path], options: Mapping[str, Any]) -> None:
    """Write everything of `runs` as one file: circumstances, trainings, and every tested case."""
    named = [read_run(run, "last", torch.device("cpu")).checkpoints for run in runs]
    tested = read_records(out / "cases", EvaluationConfig(), named)
    content = {
        "metadata": metadata("monai", "opencv-python-headless", "SimpleITK", device=choose_device("auto")),
        "command": shlex.join(sys.argv),
        "options": options,
        "trainings": {
            str(log.parent.relative_to(out)): json.loads(log.read_text())
            for run in runs
            for log in sorted(run.glob(f"*/{JSON}"))
        },
        "records": [json.loads(path.read_text()) for path in tested],
    }
    write_json(out / RESULTS, content)


app = typer.Typer(add_completion=False)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Option(
            help="A data set, or a store that `python -m reference prepare` wrote. Without it: a phantom.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the store, trainings, results and pictures.")] = Path(
        "runs/nih_pancreas"
    ),
    model: Annotated[ModelName, typer.Option(help="mll is trained with each of --losses.")] = "mll",
    losses: Annotated[str | None, typer.Option(help=f"Of mll: some of {','.join(LOSSES)}. [default: all]")] = None,
    folds: Annotated[
        str | None, typer.Option(help="Such as 0,1, from 0. [default: all of NIH Pancreas-CT, else the first of four]")
    ] = None,
    views: Annotated[
        str | None, typer.Option(help=f"Some of {','.join(VIEWS)}. [default: all; axial of single slices]")
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, help="Channels of the networks' first block. [default: 64; 8 for the phantom]")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=32, help="Pixels of a slice's longer side. [default: as they are]")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="[default: 20, for mln 25, as in the paper; 5 for the phantom]")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Adam's, at first. [default: 1e-5, as in the paper; 1e-3 for the phantom]")
    ] = None,
    imagenet: Annotated[
        str | None, typer.Option(help="File of torchvision's ImageNet weights, or hub. [default: random weights]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first weights and every draw of the training.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in --out.")] = False,
) -> None:
    """Compare region, region+boundary and multi-level loss on the pancreas, trained and tested alike.

    Prints the paper's tables with our rows, and writes them, pictures and results.json to --out. Ctrl-C keeps every
    finished epoch and tested case, and --resume goes on from there.
    """
    if context.invoked_subcommand is not None:
        return
    phantom = data is None
    trained = choose("--losses", losses, list(LOSSES), list(LOSSES)) if model == "mll" else [model]
    epochs = epochs or (PHANTOM_EPOCHS if phantom else TrainingConfig.paper(model).epochs)
    learning_rate = learning_rate or (PHANTOM_RATE if phantom else TrainingConfig.learning_rate)
    try:
        store = make_store(data, out, size)
        nih = read_record(find_cases(store)[0])["layout"] == "nih"
        flat = all(len(case.image) == 1 for case in read_store(store))
        cut = choose("--views", views, list(VIEWS), ["axial"] if flat else list(VIEWS))
        common = RunConfig(
            store,
            model,
            width or (PHANTOM_WIDTH if phantom else RunConfig.width),
            imagenet=imagenet,
            views=cast(tuple[View, ...], tuple(cut)),
            protocol="nih" if nih else None,
        )
        known = [str(fold) for fold in range(common.folds)]
        runs = []
        for fold in choose("--folds", folds, known, known if nih else known[:1]):
            for loss in trained:
                run = out / f"fold{fold}" / loss
                typer.echo(f"training {run}")
                config = replace(common, fold=int(fold), training=budget(loss, model, epochs, learning_rate, seed))
                train_run(config, run, resume=resume and (run / CONFIG).exists())
                runs.append(run)
        evaluate(store, run=runs, out=out, checkpoint="last")
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    except KeyboardInterrupt:
        command = shlex.join([part for part in sys.argv if part != "--resume"])
        typer.echo(f"interrupted; to go on after the last finished epoch: python {command} --resume")
        raise typer.Exit(130) from None
    options = {name: str(value) if isinstance(value, Path) else value for name, value in context.params.items()}
    write_results(out, runs, options)


@app.command()
def merge(
    runs: Annotated[list[Path], typer.Argument(help="Folders that hold a results.json.")],
    out: Annotated[Path, typer.Option(help="Folder for the tables and the results.json of all.")],
) -> None:
    """Put the tested cases of several runs, of other folds, seeds or machines, into one table."""
    parts = [json.loads((run / RESULTS).read_text()) for run in runs]
    records = [record for part in parts for record in part["records"]]
    keys = Counter((each["method"], each["seed"], each["dataset"], each["result"]["name"]) for each in records)
    method, seed, _, name = max(keys, key=keys.__getitem__)
    if max(keys.values()) > 1:
        raise typer.BadParameter(f"expected each case once, got {name} twice by {method} with seed {seed}")
    out.mkdir(parents=True, exist_ok=True)
    typer.echo(write_tables(measure([record_of(record) for record in records]), out))
    write_json(out / RESULTS, {"parts": [part | {"records": None} for part in parts], "records": records})


if __name__ == "__main__":
    app()
