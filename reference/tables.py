"""The paper's Tables 3 to 9, as printed, and our rows in their form."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from reference.evaluation import Summary, summarize
from reference.testing import CaseResult

Dataset = Literal["nih", "isicdm-thin", "isicdm-thick", "msd-spleen"]
DATASETS: dict[str, str] = {
    "nih": "NIH pancreas",
    "isicdm-thin": "ISICDM thin",
    "isicdm-thick": "ISICDM thick",
    "msd-spleen": "MSD spleen",
}
"""Data sets of the paper by name, and how tables call them."""

ROUNDS = {"1st iterate": 1, "2nd iterate": 2, "3rd iterate": 3, "5th iterate": 5, "10th iterate": 10}


@dataclass(frozen=True)
class Measured:
    """What the tested cases of one method came to.

    Args:
        method: as :func:`reference.runs.method_name` has it.
        label: how its rows are marked as ours.
        dataset: a key of `DATASETS`, or the name of another data set.
        with_label: whether the label chose the boxes.
        cases: one at least.
        parameters: of all views.
        flops: of one view's slice and crop; see :mod:`reference.models.costs`.
    """

    method: str
    label: str
    dataset: str
    with_label: bool
    cases: Sequence[CaseResult]
    parameters: int
    flops: int

    @property
    def dsc(self) -> Summary:
        """Of the Dice coefficient."""
        return summarize(case.dsc for case in self.cases)

    @property
    def converged(self) -> list[int]:
        """Rounds to convergence, of the cases that converged."""
        return [case.iterations for case in self.cases if case.iterations is not None]


Cell = Callable[[Measured], str]


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Args:
        number: in the paper.
        title: what it shows.
        datasets: of the paper, that its rows were measured on.
        names: our method → how the table calls it.
        columns: header → how our cell of that column is measured.
        rows: as printed.
    """

    number: int
    title: str
    datasets: tuple[Dataset, ...]
    names: Mapping[str, str]
    columns: Mapping[str, Cell]
    rows: tuple[tuple[str, ...], ...]

    def holds(self, measured: Measured) -> bool:
        """Return whether a row for `measured` belongs here: other data sets than the paper's do, in every table."""
        known = measured.dataset in DATASETS
        return (
            measured.method in self.names
            and (not known or measured.dataset in self.datasets)
            and (not measured.with_label or "Bounding box" in self.columns)
        )

    def with_ours(self, results: Sequence[Measured]) -> list[tuple[str, ...]]:
        """Return the printed rows, each of ours after that of its method, or at the end."""
        rows = list(self.rows)
        method = list(self.columns).index("Method")
        for measured in results:
            if not self.holds(measured):
                continue
            ours = tuple(cell(measured) for cell in self.columns.values())
            name = self.names[measured.method]
            # Rows of one half or data set stay together; the first column tells them apart where there are two.
            alike = [k for k, row in enumerate(rows) if row[:method] == ours[:method]]
            after = [k for k in alike if rows[k][method].startswith(name)] or alike or [len(rows) - 1]
            where = list(ours)
            where[method] = f"{name}, {measured.label}"
            rows.insert(after[-1] + 1, tuple(where))
        return rows


def percent(value: float) -> str:
    """Return a share as the paper prints it."""
    return f"{100 * value:.2f}%"


def _mean_and_sd(measured: Measured) -> str:
    return f"{percent(measured.dsc.mean)} ± {percent(measured.dsc.sd)}"


def _iterations(measured: Measured) -> str:
    return f"{np.mean(measured.converged):.2f}" if measured.converged else "–"


def mean_at(values: Sequence[Sequence[float]], index: int) -> float:
    """Return the mean of the finite values at `index`; a case that stopped before keeps its last. NaN without any."""
    return summarize(case[min(index, len(case) - 1)] for case in values if case).mean


def _by_round(
    values: Callable[[CaseResult], Sequence[float]], first: int, form: Callable[[float], str]
) -> dict[str, Cell]:
    """Return the columns of the rounds, of which `values` begin with round `first`."""

    def cell(number: int) -> Cell:
        return lambda measured: form(mean_at([values(case) for case in measured.cases], number - first))

    return {header: cell(number) for header, number in ROUNDS.items()}


def _mean_of(value: Callable[[CaseResult], float], form: Callable[[float], str]) -> Cell:
    return lambda measured: form(summarize(value(case) for case in measured.cases).mean)


def _millimetres(value: float) -> str:
    return f"{value:.3f}"


def _powers(exponent: int) -> Callable[[float], str]:
    superscript = str(exponent).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return lambda value: f"{value / 10**exponent:.1f}×10{superscript}"


_METHOD: dict[str, Cell] = {"Method": lambda measured: measured.method}
_RANGE: dict[str, Cell] = {
    "Min": lambda measured: percent(measured.dsc.min),
    "Max": lambda measured: percent(measured.dsc.max),
}
_MODELS = {"MLL": "MLL model", "MLN": "MLN model", "RSTN": "RSTN [60]"}
_LOSSES = {name: name for name in ("Region loss", "Region + boundary loss", "MLL")}
_WITH, _WITHOUT = "with label", "w/o label"

TABLES = (
    PaperTable(
        3,
        "Segmentation comparison with the state of the art on the NIH pancreas dataset",
        ("nih",),
        _MODELS,
        {
            "Bounding box": lambda measured: _WITH if measured.with_label else _WITHOUT,
            **_METHOD,
            "Year": lambda _: "–",
            "DSC": _mean_and_sd,
            **_RANGE,
            "Model type": lambda _: "2-D",
        },
        (
            (_WITH, "Liu et al. [65]", "2018", "86.70% ± 3.57%", "73.61%", "N/A", "2-D"),
            (_WITH, "Li et al. [66]", "2020", "87.57% ± 3.26%", "73.68%", "93.40%", "2-D"),
            (_WITH, "MLL model", "–", "88.01% ± 2.50%", "79.80%", "92.71%", "2-D"),
            (_WITH, "MLN model", "–", "87.87% ± 2.51%", "80.57%", "92.62%", "2-D"),
            (_WITHOUT, "Zeng et al. [67]", "2019", "83.00% ± 5.85%", "68.39%", "90.31%", "3-D"),
            (_WITHOUT, "Zhou et al. [68]", "2018", "84.59% ± 4.86%", "69.62%", "91.45%", "3-D"),
            (_WITHOUT, "nnU-Net [48]", "2021", "84.98% ± 5.67%", "60.66%", "91.68%", "3-D"),
            (_WITHOUT, "Xia et al. [69]", "2018", "84.63% ± 5.07%", "61.58%", "91.57%", "2-D&3-D"),
            (_WITHOUT, "Chen et al. [70]", "2019", "85.22% ± 4.07%", "71.40%", "91.36%", "2-D&3-D"),
            (_WITHOUT, "Zhou et al. [59]", "2017", "82.37% ± 5.68%", "62.43%", "90.85%", "2-D"),
            (_WITHOUT, "RSTN [60]", "2018", "84.50% ± 4.97%", "62.81%", "91.02%", "2-D"),
            (_WITHOUT, "Hu et al. [71]", "2021", "85.49% ± 4.77%", "67.19%", "91.64%", "2-D"),
            (_WITHOUT, "MLL model", "–", "85.83% ± 4.37%", "65.19%", "91.71%", "2-D"),
            (_WITHOUT, "MLN model", "–", "85.62% ± 4.56%", "64.20%", "91.81%", "2-D"),
        ),
    ),
    PaperTable(
        4,
        "Convergence: relative DSC by iteration",
        ("nih",),
        {"RSTN": "RSTN [60]", **_LOSSES},
        {
            **_METHOD,
            **_by_round(lambda case: case.rdsc_per_round, 1, lambda value: f"{value:.4f}"),
            "Converged cases": lambda measured: f"{len(measured.converged)}/{len(measured.cases)}",
            "Converged": lambda measured: f"{_iterations(measured)} iters",
        },
        (
            ("RSTN [60]", "0.9037", "0.9637", "0.9814", "0.9908", "0.9964", "80/82", "5.22 iters"),
            ("Region loss", "0.8970", "0.9676", "0.9826", "0.9921", "0.9970", "80/82", "4.85 iters"),
            ("Region + boundary loss", "0.8898", "0.9652", "0.9819", "0.9918", "0.9970", "81/82", "4.83 iters"),
            ("MLL", "0.8891", "0.9662", "0.9840", "0.9939", "0.9979", "82/82", "4.29 iters"),
        ),
    ),
    PaperTable(
        5,
        "DSC of different loss functions by iteration",
        ("nih",),
        _LOSSES,
        {
            **_METHOD,
            **_by_round(lambda case: case.dsc_per_round, 0, percent),
            "Converged": _mean_of(lambda case: case.dsc, percent),
        },
        (
            ("Region loss", "83.44%", "84.45%", "84.82%", "85.09%", "85.28%", "85.20%"),
            ("Region + boundary loss", "83.54%", "84.73%", "85.16%", "85.50%", "85.74%", "85.63%"),
            ("MLL", "84.02%", "85.20%", "85.58%", "85.82%", "85.89%", "85.83%"),
        ),
    ),
    PaperTable(
        6,
        "95% Hausdorff distance (mm) of different loss functions by iteration",
        ("nih",),
        _LOSSES,
        {
            **_METHOD,
            **_by_round(lambda case: case.hd95_per_round, 0, _millimetres),
            "Converged": _mean_of(lambda case: case.hd95, _millimetres),
        },
        (
            ("Region loss", "6.678", "6.367", "6.177", "6.003", "5.543", "5.645"),
            ("Region + boundary loss", "6.405", "6.022", "5.798", "5.538", "5.305", "5.366"),
            ("MLL", "5.751", "5.419", "5.240", "5.082", "5.045", "5.069"),
        ),
    ),
    PaperTable(
        7,
        "Segmentation accuracy on the ISICDM datasets",
        ("isicdm-thin", "isicdm-thick"),
        _MODELS,
        {
            "Dataset": lambda measured: (
                DATASETS.get(measured.dataset, measured.dataset).removeprefix("ISICDM ").title()
            ),
            **_METHOD,
            "Averaged DSC": _mean_and_sd,
            **_RANGE,
            "Iteration": _iterations,
            "Time (s)": _mean_of(lambda case: case.seconds, lambda value: f"{value:.2f}"),
        },
        (
            ("Thin", "RSTN [60]", "86.18% ± 5.26%", "70.81%", "92.35%", "6.11", "110.16"),
            ("Thin", "nnU-Net [48]", "86.71% ± 5.03%", "74.09%", "94.79%", "-", "1021.3"),
            ("Thin", "MLL model", "87.63% ± 4.73%", "74.53%", "93.70%", "3.92", "81.21"),
            ("Thin", "MLN model", "87.33% ± 4.91%", "74.35%", "93.12%", "4.42", "99.50"),
            ("Thick", "RSTN [60]", "79.93% ± 7.29%", "55.28%", "89.95%", "7.78", "11.09"),
            ("Thick", "nnU-Net [48]", "80.75% ± 8.83%", "47.00%", "91.19%", "-", "136.4"),
            ("Thick", "MLL model", "82.23% ± 6.41%", "65.04%", "90.02%", "6.64", "10.62"),
            ("Thick", "MLN model", "82.66% ± 6.82%", "62.13%", "91.36%", "5.81", "11.07"),
        ),
    ),
    PaperTable(
        8,
        "Segmentation accuracy on the MSD spleen dataset",
        ("msd-spleen",),
        _MODELS,
        {
            **_METHOD,
            "DSC": _mean_and_sd,
            **_RANGE,
            "Iterations": _iterations,
            "Time (m)": _mean_of(lambda case: case.seconds, lambda value: f"{value / 60:.2f}"),
            "Parameters": lambda measured: _powers(7)(measured.parameters),
            "Flops": lambda measured: _powers(10)(measured.flops),
        },
        (
            ("EBP [64]", "92.79% ± 3.76%", "84.81%", "96.75%", "10", "60.26", "0.2×10⁷", "0.5×10¹⁰"),
            ("LSM [72]", "93.03% ± 2.20%", "89.22%", "96.29%", "3", "4.81", "4.1×10⁷", "10.6×10¹⁰"),
            ("V-Net [38]", "92.11% ± 7.93%", "59.95%", "96.53%", "-", "0.10", "1.9×10⁷", "68.4×10¹⁰"),
            ("RSTN [60]", "95.26% ± 1.31%", "92.61%", "97.29%", "3.55", "0.21", "26.9×10⁷", "44.1×10¹⁰"),
            ("nnU-Net [48]", "95.77% ± 1.55%", "91.33%", "97.75%", "-", "4.5", "6.2×10⁷", "293.5×10¹⁰"),
            ("MLL model", "95.96% ± 1.14%", "94.18%", "97.85%", "2.55", "0.18", "3.1×10⁷", "14.9×10¹⁰"),
            ("MLN model", "96.58% ± 0.97%", "94.87%", "98.13%", "2.55", "0.19", "3.6×10⁷", "16.9×10¹⁰"),
        ),
    ),
    PaperTable(
        9,
        "Ablation of the modules of the multi-level structural network",
        ("msd-spleen",),
        {
            "MLN w/o Pixel&MLSG module": "w/o Pixel&MLSG module",
            "MLN w/o MLSG module": "w/o MLSG module",
            "MLN w/o Pixel module": "w/o Pixel module",
            "MLN": "MLN model",
        },
        {
            **_METHOD,
            "DSC": _mean_and_sd,
            **_RANGE,
            "Iterations": _iterations,
            "Time": _mean_of(lambda case: case.seconds, lambda value: f"{value:.1f}s"),
            "Parameters": lambda measured: _powers(7)(measured.parameters),
            "Flops": lambda measured: _powers(11)(measured.flops),
        },
        (
            ("w/o Pixel&MLSG module", "96.02% ± 1.30%", "93.56%", "98.26%", "3.90", "13.3s", "4.0×10⁷", "2.5×10¹¹"),
            ("w/o MLSG module", "96.28% ± 1.20%", "93.43%", "98.18%", "2.65", "11.8s", "4.0×10⁷", "2.5×10¹¹"),
            ("w/o Pixel module", "96.35% ± 1.37%", "92.12%", "98.16%", "2.55", "10.9s", "3.6×10⁷", "1.7×10¹¹"),
            ("MLN model", "96.58% ± 0.97%", "94.87%", "98.13%", "2.55", "11.4s", "3.6×10⁷", "1.7×10¹¹"),
        ),
    ),
)


def as_text(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table for the terminal."""
    table = Table(*header, title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    text = io.StringIO()
    Console(file=text, width=200, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def as_csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as comma-separated values."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def as_latex(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table for LaTeX with the package booktabs."""
    lines = (" & ".join(map(_latex, row)) + r" \\" for row in (header, *rows))
    top, *rest = lines
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_latex(title)}}}",
            rf"\begin{{tabular}}{{{'l' * len(header)}}}",
            r"\toprule",
            top,
            r"\midrule",
            *rest,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex(text: str) -> str:
    for character in "&%#_":
        text = text.replace(character, f"\\{character}")
    text = text.replace("±", r"$\pm$").replace("–", "--")
    if "×10" in text:
        mantissa, exponent = text.split("×10")
        text = rf"${mantissa} \times 10^{{{exponent.translate(str.maketrans('⁰¹²³⁴⁵⁶⁷⁸⁹', '0123456789'))}}}$"
    return text
