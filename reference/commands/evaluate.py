"""`python -m reference evaluate`: the test cases of trained runs, measured, in the paper's tables and figures."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from reference.config import Precision
from reference.data import Case
from reference.data.store import read_record, read_store
from reference.inference import Vote
from reference.ranks import Accelerator, choose_device, own_share
from reference.report import draw_figures, measure, read_records, write_tables
from reference.runs import Checkpoint, Run, method_name, read_run, tested_cases
from reference.testing import EvaluationConfig, Record, evaluate_case, save_record


class Task(NamedTuple):
    """A case to test, by the models of a run, and where its result goes."""

    run: Run
    case: Case
    path: Path


def evaluate(
    store: Annotated[Path, typer.Argument(help="Folder that the prepare command wrote.")],
    run: Annotated[list[Path], typer.Option(help="Folder of a trained run; its fold is tested. May be repeated.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results, tables and pictures.")],
    checkpoint: Annotated[Checkpoint, typer.Option(help="Which of the runs' models.")] = "best",
    with_label: Annotated[
        bool, typer.Option("--with-label", help="Take the boxes from the label, as the upper half of Table 3 does.")
    ] = False,
    tmax: Annotated[int, typer.Option(min=0, help="Rounds at most.")] = 10,
    tol: Annotated[float, typer.Option(help="Relative DSC at which a case has converged.")] = 0.99,
    stop: Annotated[
        bool,
        typer.Option(
            "--stop", help="Stop a case that has converged, as predict does; Tables 4 to 6 then repeat its last figure."
        ),
    ] = False,
    vote: Annotated[Vote, typer.Option(help="How the views are fused.")] = "mean",
    tolerance: Annotated[float, typer.Option(min=0, help="mm within which surfaces count as one in NSD.")] = 1.0,
    precision: Annotated[Precision, typer.Option(help="bf16-mixed is quicker where the hardware has it.")] = "32-true",
    dataset: Annotated[
        str | None,
        typer.Option(
            help="nih, isicdm-thin, isicdm-thick or msd-spleen for the paper's tables, or any name. Without it: as the "
            "store says.",
            show_default=False,
        ),
    ] = None,
    accelerator: Annotated[Accelerator, typer.Option(help="Where to compute.")] = "auto",
    shard: Annotated[
        str | None,
        typer.Option(help="i/n: every n-th case from the i-th on. torchrun's ranks share them out by themselves."),
    ] = None,
) -> None:
    """Test runs on the cases they left out, and print the paper's Tables 3 to 9 with a row of ours beside the printed.

    Every case is written to OUT/cases as soon as it is tested, and not tested again by the same models and options.
    Results of other runs in OUT with these options enter the tables too. What was tested with --with-label and
    without, into the same folder, makes both halves of Table 3.
    """
    config = EvaluationConfig(tmax, tol, not stop, vote, with_label, precision, tolerance)
    try:
        device = choose_device(accelerator)
        runs = [read_run(folder, checkpoint, device) for folder in run]
        tasks = find_tasks(runs, read_store(store), config, out)
        mine = [task for task in own_share(tasks, shard) if not task.path.is_file()]
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    run_tasks(mine, config, store, dataset)
    missing = sum(not task.path.is_file() for task in tasks)
    if missing:
        typer.echo(f"{missing} of {len(tasks)} cases are still to be tested; run this again then, for the tables")
        return
    try:
        records = read_records(out / "cases", config, [each.checkpoints for each in runs])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--out") from error
    typer.echo(write_tables(measure(list(records.values())), out))
    for path in draw_figures(records, out):
        typer.echo(path)


def find_tasks(runs: Sequence[Run], cases: Sequence[Case], config: EvaluationConfig, out: Path) -> list[Task]:
    """Return the cases that each run shall be tested on, in an order that all processes agree on."""
    tasks = []
    for run in runs:
        identity = json.dumps([run.checkpoints, asdict(config)], sort_keys=True)
        name = re.sub(r"\W+", "-", method_name(run.config).lower())
        folder = out / "cases" / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
        tasks += [Task(run, case, folder / f"{case.name}.json") for case in tested_cases(run, cases)]
    return tasks


def run_tasks(tasks: Sequence[Task], config: EvaluationConfig, store: Path, dataset: str | None) -> None:
    """Test cases, writing each."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=len(tasks))
        for run, case, path in tasks:
            progress.update(bar, description=case.name)
            result, overlay = evaluate_case(run.models, case, config)
            record = Record(
                method=method_name(run.config),
                dataset=dataset or dataset_of(store, case),
                seed=run.config.training.seed,
                fold=run.config.fold,
                views=len(run.models),
                model=next(iter(run.models.values())).config,
                checkpoints=run.checkpoints,
                config=config,
                result=result,
            )
            save_record(record, overlay, path)
            progress.advance(bar)


def dataset_of(store: Path, case: Case) -> str:
    """Return which of the paper's data sets a case is of, or the name of its store."""
    record = read_record(store / case.name)
    if record["layout"] == "nih":
        return "nih"
    if record["layout"] == "isicdm":
        return f"isicdm-{case.name.split('-')[0]}"
    if record["layout"] == "msd" and "spleen" in record["sources"][0]["path"].lower():
        return "msd-spleen"
    return store.resolve().name
