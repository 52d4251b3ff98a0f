"""Tables and pictures of tested cases."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from reference.evaluation import Summary, summarize
from reference.files import replacing
from reference.models import build_model
from reference.models.costs import count_coarse_to_fine
from reference.plots import Overlay, draw_convergence, draw_overlaps, draw_overlays, draw_selection
from reference.tables import DATASETS, TABLES, Measured, as_csv, as_latex, as_text, mean_at, percent
from reference.testing import CaseResult, EvaluationConfig, Record, load_overlay, load_record

LOSSES = ("Region loss", "Region + boundary loss", "MLL", "MLN")
"""Methods in the order of Fig. 7, weakest loss first; any other follows."""
SHOWN_CASES = 4
AVERAGE = "average"


def read_records(folder: Path, config: EvaluationConfig, named: Sequence[Mapping[str, str]]) -> dict[Path, Record]:
    """Return the records of a folder that were tested as `config` says, with boxes from the label or without.

    Args:
        folder: holds a folder of records for each run.
        config: the options of testing; `with_label` may differ.
        named: checkpoints of the runs that count where others have tested the same cases for the same method.

    Raises:
        ValueError: two other runs of one method and seed have tested the same case, or a record is damaged.
    """
    chosen: dict[tuple[object, ...], Path] = {}
    records = {path: load_record(path) for path in sorted(folder.glob("*/*.json"))}
    for path, record in records.items():
        if {**vars(record.config), "with_label": None} != {**vars(config), "with_label": None}:
            continue
        key = (record.dataset, record.method, record.config.with_label, record.seed, record.result.name)
        rival = chosen.get(key)
        if rival is None or records[rival].checkpoints not in named:
            if rival is not None and record.checkpoints not in named:
                raise ValueError(f"expected one result of {key[-1]} by {record.method}, got {rival} and {path}")
            chosen[key] = path
    return {path: records[path] for path in chosen.values()}


def measure(records: Sequence[Record]) -> list[Measured]:
    """Return what each method came to, on each data set, with either kind of boxes and each seed."""
    groups: dict[tuple[str, str, bool, int], list[Record]] = defaultdict(list)
    for record in records:
        groups[record.dataset, record.method, record.config.with_label, record.seed].append(record)
    measured = []
    for (dataset, method, with_label, seed), group in sorted(groups.items(), key=lambda item: _order(*item[0])):
        seeds = {other[3] for other in groups if other[:3] == (dataset, method, with_label)}
        marks = ["ours", *([] if dataset in DATASETS else [f"on {dataset}"]), *([f"seed {seed}"] * (len(seeds) > 1))]
        cost = count_coarse_to_fine(partial(build_model, **group[0].model))
        cases = sorted((record.result for record in group), key=lambda case: case.name)
        parameters = group[0].views * cost.parameters
        measured.append(Measured(method, ", ".join(marks), dataset, with_label, cases, parameters, cost.flops))
    return measured


def write_tables(measured: Sequence[Measured], out: Path) -> str:
    """Write the tables for which there is something to say as text, CSV and LaTeX, and return the text.

    Files are tables.txt, table3.csv, table3.tex …, and summary.csv, summary.tex, cases.csv, which are not the paper's.
    """
    texts = []
    for table in TABLES:
        if not any(map(table.holds, measured)):
            names = " or ".join(DATASETS[name] for name in table.datasets)
            texts.append(f"Table {table.number} is left out: nothing was measured for it ({names}).\n")
            continue
        title = f"Table {table.number}. {table.title}"
        rows = table.with_ours(measured)
        texts.append(as_text(title, list(table.columns), rows))
        _write(out / f"table{table.number}.csv", as_csv(list(table.columns), rows))
        _write(out / f"table{table.number}.tex", as_latex(table.title, list(table.columns), rows))
    header, rows = summary_rows(measured)
    title = "All that was measured, after convergence: mean ± sd over cases (2-D images have lost mm: pixels)"
    texts.append(as_text(title, header, rows))
    _write(out / "summary.csv", as_csv(header, rows))
    _write(out / "summary.tex", as_latex(title, header, rows))
    _write(out / "cases.csv", as_csv(*case_rows(measured)))
    text = "\n".join(texts)
    _write(out / "tables.txt", text)
    return text


def summary_rows(measured: Sequence[Measured]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return header and rows of the table of everything."""
    header = ["Data", "Method", "Box", "Cases", "DSC", "Min", "Max", "HD95 (mm)", "ASD (mm)", "NSD", "Without distance"]
    header += ["Converged", "Iterations", "Time (s)"]
    rows: list[tuple[str, ...]] = []
    for each in measured:
        hd95 = summarize(case.hd95 for case in each.cases)
        asd = summarize(case.asd for case in each.cases)
        nsd = summarize(case.nsd for case in each.cases)
        seconds = summarize(case.seconds for case in each.cases)
        rows.append(
            (
                DATASETS.get(each.dataset, each.dataset),
                f"{each.method}, {each.label}",
                "label" if each.with_label else "coarse",
                str(len(each.cases)),
                _spread(each.dsc, percent),
                percent(each.dsc.min),
                percent(each.dsc.max),
                _spread(hd95, "{:.3f}".format),
                _spread(asd, "{:.3f}".format),
                _spread(nsd, percent),
                str(hd95.undefined),
                f"{len(each.converged)}/{len(each.cases)}",
                f"{np.mean(each.converged):.2f}" if each.converged else "–",
                f"{seconds.mean:.2f}",
            )
        )
    return header, rows


def case_rows(measured: Sequence[Measured]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return header and rows of the table of every case."""
    header = ["data", "method", "with_label", "case", "dsc", "hd95_mm", "asd_mm", "nsd", "iterations", "seconds"]
    rows = [
        (
            each.dataset,
            f"{each.method}, {each.label}",
            str(each.with_label),
            case.name,
            *(f"{value:.6g}" for value in (case.dsc, case.hd95, case.asd, case.nsd)),
            "" if case.iterations is None else str(case.iterations),
            f"{case.seconds:.3f}",
        )
        for each in measured
        for case in each.cases
    ]
    return header, rows


def draw_figures(records: Mapping[Path, Record], out: Path) -> list[Path]:
    """Draw Figs. 3, 6, 7 and 8 or 9 of each data set, of what was tested without the label, and return their paths.

    Fig. 6 by folds needs several of them, Fig. 7 and Fig. 6 by losses need several methods.
    """
    drawn = []
    for dataset in sorted({record.dataset for record in records.values()}):
        mine = {
            path: record
            for path, record in records.items()
            if record.dataset == dataset and not record.config.with_label
        }
        if mine:
            drawn += _draw_dataset(mine, DATASETS.get(dataset, dataset), dataset, out)
    return drawn


def _draw_dataset(records: Mapping[Path, Record], title: str, dataset: str, out: Path) -> list[Path]:
    by_method: dict[str, dict[str, Path]] = defaultdict(dict)  # Of several seeds the last one is shown.
    for path, record in records.items():
        by_method[record.method][record.result.name] = path
    by_method = dict(sorted(by_method.items(), key=lambda item: _order(dataset, item[0], False, 0)))
    best = list(by_method)[-1]
    common = sorted(set.intersection(*(set(paths) for paths in by_method.values())))
    drawn = []

    def figure(number: int, suffix: str = "") -> Path:
        drawn.append(out / f"figure{number}{suffix}-{dataset}.png")
        return drawn[-1]

    def results(method: str, fold: int | None = None) -> list[CaseResult]:
        mine = [record for record in records.values() if record.method == method]
        return [record.result for record in mine if fold is None or record.fold == fold]

    typical = sorted(by_method[best].values(), key=lambda path: records[path].result.dsc)[len(by_method[best]) // 2]
    name = records[typical].result.name
    draw_selection(figure(3), load_overlay(typical), f"{title}: uncertain points of {name}, {best}")
    folds = sorted({record.fold for record in records.values() if record.method == best and record.fold is not None})
    if len(folds) > 1:
        lines = {f"fold {fold + 1}": results(best, fold) for fold in folds} | {AVERAGE: results(best)}
        draw_convergence(figure(6, "ab"), *_by_iteration(lines), f"{title}: {best}, by fold", average=AVERAGE)
    if len(by_method) > 1:
        lines = {method: results(method) for method in by_method}
        draw_convergence(figure(6, "cd"), *_by_iteration(lines), title)
    if not common:
        return drawn
    if len(by_method) > 1:
        telling = max(
            common, key=lambda case: np.ptp([records[paths[case]].result.dsc for paths in by_method.values()])
        )
        draw_overlays(figure(7), _overlays(by_method, [telling]), f"{title}: where the methods differ most")
    shown = common[:: math.ceil(len(common) / SHOWN_CASES)]
    draw_overlaps(figure(9 if dataset == "msd-spleen" else 8), _overlays(by_method, shown), title)
    return drawn


def _overlays(by_method: Mapping[str, Mapping[str, Path]], cases: Sequence[str]) -> dict[str, dict[str, Overlay]]:
    return {case: {method: load_overlay(paths[case]) for method, paths in by_method.items()} for case in cases}


def _by_iteration(lines: Mapping[str, Sequence[CaseResult]]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return mean DSC and RDSC by iteration of each line."""
    dsc = {name: _means([case.dsc_per_round for case in cases]) for name, cases in lines.items()}
    return dsc, {name: _means([case.rdsc_per_round for case in cases]) for name, cases in lines.items()}


def _means(values: Sequence[Sequence[float]]) -> list[float]:
    return [mean_at(values, index) for index in range(max(map(len, values)))]


def _order(dataset: str, method: str, with_label: bool, seed: int) -> tuple[object, ...]:
    rank = LOSSES.index(method) if method in LOSSES else -1 if method == "RSTN" else len(LOSSES)
    return dataset, not with_label, rank, method, seed


def _spread(summary: Summary, form: Callable[[float], str]) -> str:
    return f"{form(summary.mean)} ± {form(summary.sd)}" if summary.count else "–"


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
