"""Write the tables of the page on speed from the results that the benchmarks left."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
FOLDER = Path(__file__).parent / "_generated"
LARGE = ["2x3x96x96x96", "4x1x512x512"]
OVERLAP = ["DiceLoss", "DiceLoss(squared=True)", "IoULoss", "TverskyLoss", "GeneralizedDiceLoss", "FocalTverskyLoss"]
OVERLAP += ["LogCoshDiceLoss", "AsymmetricSimilarityLoss", "PenaltyLoss", "MatthewsCorrelationLoss"]
FASTER = {"DiceCELoss": 3, "DiceFocalLoss": 3, "HausdorffDTLoss": 20, "MLLoss": 10, "MLLoss, maps given": 2}
"""Losses and how many times faster than their peers they are meant to be, on the larger shapes."""
HEADER = ["loss", "ours, ms", "fastest peer, ms", "peer ÷ ours", "ours ÷ BCE", "memory", "memory of the peer"]


def main() -> None:
    """Write the tables as text to include."""
    content = json.loads((RESULTS / "losses.json").read_text())
    FOLDER.mkdir(exist_ok=True)
    shapes = content["bce_seconds"].items()
    tables = [table(shape, bce, [row for row in content["rows"] if row["shape"] == shape]) for shape, bce in shapes]
    aims = goals(content["rows"], content["bce_seconds"])
    (FOLDER / "speed_of_losses.txt").write_text("\n".join([circumstances(content["metadata"]), aims, *tables]))
    (FOLDER / "training_step.txt").write_text(steps(json.loads((RESULTS / "training_step.json").read_text())))


def circumstances(metadata: Mapping[str, Any]) -> str:
    """Return where and when it was measured."""
    packages = ("torch", "monai", "kornia", "numpy", "scipy")
    versions = ", ".join(f"{name} {metadata[name]}" for name in packages if name in metadata)
    return (
        f"Measured on {metadata['date'][:10]} on {metadata['device']}, with {metadata['threads']} threads on "
        f"{metadata['cores']} cores at a load of {metadata['load']}; {versions}, Python {metadata['python']}, commit "
        f"``{metadata['commit'][:12]}``.\n"
    )


def goals(rows: Sequence[Mapping[str, Any]], bce: Mapping[str, float]) -> str:
    """Return the table of what was aimed at and what is reached."""
    own = {(row["loss"], row["shape"]): row for row in rows if row["maker"] == "ours"}
    peers = {key: peer for key in own if (peer := fastest_peer(rows, *key)) is not None}
    ratio = {key: seconds(peer) / seconds(own[key]) for key, peer in peers.items()}
    slower = [f"``{loss}`` on {of(shape)} ({value:.3f})" for (loss, shape), value in ratio.items() if value < 1]
    lines = [
        ".. csv-table:: Aims",
        "   :header-rows: 1",
        "   :widths: 46 14 40",
        "",
        line(["aim", "reached", "figures"]),
        line(["no loss slower than its fastest peer", "no" if slower else "yes", "; ".join(slower)]),
    ]
    for loss, least in FASTER.items():
        values = {shape: ratio[loss, shape] for shape in LARGE}
        lines.append(
            goal(f"``{loss}`` {least} times as fast as its peer", values, all(v >= least for v in values.values()))
        )
    cost = {shape: seconds(own["MLLoss, maps given", shape]) / bce[shape] for shape in LARGE}
    lines.append(goal("``MLLoss``, maps given, 4 times binary cross entropy at most", cost, max(cost.values()) <= 4))
    memories = {
        "the overlap losses": OVERLAP,
        "``MLLoss``": ["MLLoss"],
        "``MLLoss``, maps given,": ["MLLoss, maps given"],
    }
    for title, names in memories.items():
        peaks = {shape: max(own[name, shape]["peak"] / own[name, shape]["logits"] for name in names) for shape in LARGE}
        lines.append(goal(f"memory of {title} twice the logits at most", peaks, max(peaks.values()) <= 2))
    return "\n".join([*lines, ""])


def goal(aim: str, values: Mapping[str, float], reached: bool) -> str:
    """Return one line of the table of aims."""
    figures = ", ".join(f"{value:.2f} on {of(shape)}" for shape, value in values.items())
    return line([aim, "yes" if reached else "no", figures])


def fastest_peer(rows: Iterable[Mapping[str, Any]], loss: str, shape: str) -> Mapping[str, Any] | None:
    """Return the quickest row of someone else's."""
    peers = [row for row in rows if (row["loss"], row["shape"]) == (loss, shape) and row["maker"] != "ours"]
    return min(peers, key=seconds, default=None)


def of(shape: str) -> str:
    """Return a shape as one writes it."""
    return shape.replace("x", "×")


def table(shape: str, bce: float, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of one shape, a line a loss."""
    lines = [
        f".. csv-table:: Logits {of(shape)}; binary cross entropy takes {1e3 * bce:.1f} ms",
        "   :header-rows: 1",
        "   :widths: 34 11 22 9 9 7 8",
        "",
        line(HEADER),
    ]
    for ours in rows:
        if ours["maker"] != "ours":
            continue
        fastest = fastest_peer(rows, ours["loss"], shape)
        cells = [f"``{ours['loss']}``", f"{1e3 * seconds(ours):.1f}"]
        if fastest is None:
            cells += ["", ""]
        else:
            note = f"; {fastest['differs']}" if fastest["differs"] else ""
            cells += [
                f"{1e3 * seconds(fastest):.1f} ({fastest['maker']}{note})",
                f"{seconds(fastest) / seconds(ours):.2f}",
            ]
        lines.append(line([*cells, f"{seconds(ours) / bce:.1f}", memory(ours), memory(fastest)]))
    return "\n".join([*lines, ""])


def steps(content: Mapping[str, Any]) -> str:
    """Return the table of the shares of a training step, and its circumstances."""
    networks = {row["network"]: row for row in content["rows"]}
    by_loss: dict[str, dict[str, Any]] = {}
    for row in content["rows"]:
        by_loss.setdefault(row["loss"], {})[row["network"]] = row
    rest = "; ".join(f"{name} takes {row['rest']['median']:.1f} s" for name, row in networks.items())
    lines = [
        f".. csv-table:: Images {of(content['shape'])}, {content['classes']} classes, {content['precision']}: {rest}",
        "   :header-rows: 1",
        "",
        line(["loss", *(f"{column} {name}" for name in networks for column in ("ms beside", "share of a step of"))]),
    ]
    for loss, rows in by_loss.items():
        cells = ((f"{1e3 * seconds(row):.0f}", f"{100 * row['share']:.2f} %") for row in rows.values())
        lines.append(line([loss, *(cell for pair in cells for cell in pair)]))
    return "\n".join([circumstances(content["metadata"]), *lines, ""])


def seconds(row: Mapping[str, Any]) -> float:
    """Return the median of a row."""
    return float(row["timing"]["median"])


def memory(row: Mapping[str, Any] | None) -> str:
    """Return peak memory by the logits."""
    return "" if row is None or row["peak"] is None else f"{row['peak'] / row['logits']:.1f}"


def line(cells: Iterable[str]) -> str:
    """Return one line of a csv-table."""
    return "   " + ", ".join('"' + cell.replace('"', '""') + '"' for cell in cells)
