"""The log of a training: one record an epoch, kept as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from reference.files import replacing
from reference.models import Stage

CSV, JSON = "log.csv", "log.json"


@dataclass(frozen=True)
class EpochRecord:
    """One line of the log: what an epoch was trained with and what came of it.

    Attributes:
        epoch: counted from 0.
        stage: S, I or J.
        learning_rate: Adam's.
        alpha: weight of the boundary term.
        beta: weight of the uncertain points.
        gamma: weight of the fused branches, 0 where the model has none.
        loss: mean of what was minimized, ω₁·coarse + ω₂·(region + α·boundary + β·pixel + γ·fusion).
        coarse: mean Dice loss of the coarse model.
        region: mean region term of the fine model.
        boundary: mean boundary term; None while its weight is 0, since it is not computed then.
        pixel: mean uncertain-point term, likewise.
        fusion: mean Dice loss of the fused branches, likewise.
        coarse_dsc: mean DSC of the coarse model over the validation units.
        fine_dsc: mean DSC of the fine model over the validation units, boxes from the coarse one.
        seconds: wall-clock time of the epoch, validation included.
    """

    epoch: int
    stage: Stage
    learning_rate: float
    alpha: float
    beta: float
    gamma: float
    loss: float
    coarse: float
    region: float
    boundary: float | None
    pixel: float | None
    fusion: float | None
    coarse_dsc: float
    fine_dsc: float
    seconds: float


def write_history(out: Path, config: Mapping[str, Any], history: Sequence[EpochRecord]) -> None:
    """Write out/log.csv, and out/log.json with `config` beside the records, each whole or not at all."""
    records = [asdict(record) for record in history]
    table = io.StringIO()
    writer = csv.DictWriter(table, [column.name for column in fields(EpochRecord)])
    writer.writeheader()
    writer.writerows(records)
    log = json.dumps({"config": config, "epochs": records}, indent=2)
    for name, text in ((CSV, table.getvalue()), (JSON, log)):
        with replacing(out / name) as path:
            path.write_text(text, encoding="utf-8", newline="")


def read_history(out: Path) -> list[EpochRecord]:
    """Return the records of the training that writes to `out`."""
    return [EpochRecord(**record) for record in json.loads((out / JSON).read_text(encoding="utf-8"))["epochs"]]
