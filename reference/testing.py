"""Testing of cases: what comes of each in every round, kept in a file as soon as it is known."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from multilevel_loss.points import uncertain_points
from reference.config import Precision
from reference.data import Case
from reference.evaluation import average_surface_distance, dice_score, hausdorff_distance_95, surface_dice
from reference.files import replacing
from reference.inference import Segmentation, Vote, segment
from reference.models import Box, CoarseToFine, bounding_box, crop
from reference.plots import Overlay

SHOWN_POINTS = 256


@dataclass(frozen=True)
class EvaluationConfig:
    """How cases are tested.

    Args:
        tmax: rounds at most.
        tol: relative DSC at which a case has converged.
        all_rounds: go on to `tmax` after that, as the paper's Tables 4 to 6 do; what is reported as converged stays.
        vote: of the views; see :func:`segment`.
        with_label: the label chooses the boxes, as in the upper half of Table 3.
        precision: as Fabric names it.
        tolerance: mm within which surfaces count as one in NSD.
    """

    tmax: int = 10
    tol: float = 0.99
    all_rounds: bool = True
    vote: Vote = "mean"
    with_label: bool = False
    precision: Precision = "32-true"
    tolerance: float = 1.0


@dataclass(frozen=True)
class CaseResult:
    """What came of one case. Round 0 is the coarse one; lists "per round" begin there unless stated.

    Args:
        name: of the case.
        patient: of the case.
        dsc_per_round: Dice coefficient.
        hd95_per_round: 95 % Hausdorff distance in mm, infinite where only the prediction or only the label is empty.
        rdsc_per_round: Dice coefficient with the round before, from round 1.
        seconds_per_round: wall-clock time.
        crops_per_round: units that passed the fine model, from round 1.
        iterations: the first round whose relative DSC reached the tolerance; None if none did.
        asd: average surface distance in mm, in that round or the last.
        nsd: normalized surface Dice, likewise.
    """

    name: str
    patient: str
    dsc_per_round: list[float]
    hd95_per_round: list[float]
    rdsc_per_round: list[float]
    seconds_per_round: list[float]
    crops_per_round: list[int]
    iterations: int | None
    asd: float
    nsd: float

    @property
    def final(self) -> int:
        """The round that is reported: of convergence, or the last."""
        return len(self.rdsc_per_round) if self.iterations is None else self.iterations

    @property
    def dsc(self) -> float:
        """Dice coefficient of that round."""
        return self.dsc_per_round[self.final]

    @property
    def hd95(self) -> float:
        """95 % Hausdorff distance of that round, in mm."""
        return self.hd95_per_round[self.final]

    @property
    def seconds(self) -> float:
        """Wall-clock time up to that round."""
        return sum(self.seconds_per_round[: self.final + 1])


@dataclass(frozen=True)
class Record:
    """A tested case, by whom and how.

    Args:
        method: name of the loss or model, as the paper's tables have it.
        dataset: name of the data set.
        seed: of the training.
        fold: that was tested; None of a run without folds.
        views: number of models that were fused.
        model: what :func:`build_model` makes each of them from.
        checkpoints: SHA-256 of each, by view.
        config: how the case was tested.
        result: what came of it.
    """

    method: str
    dataset: str
    seed: int
    fold: int | None
    views: int
    model: dict[str, Any]
    checkpoints: dict[str, str]
    config: EvaluationConfig
    result: CaseResult


def evaluate_case(
    models: Mapping[int, CoarseToFine], case: Case, config: EvaluationConfig
) -> tuple[CaseResult, Overlay]:
    """Segment one case by Algorithm 1, measure every round, and keep the slice with most organ to show."""
    dsc: list[float] = []
    hd95: list[float] = []
    converged: list[NDArray[np.bool_]] = []
    last = np.zeros(0, dtype=np.bool_)

    def observe(number: int, mask: NDArray[np.bool_]) -> None:
        nonlocal last
        dsc.append(dice_score(mask, case.label))
        hd95.append(hausdorff_distance_95(mask, case.label, case.spacing))
        if number > 0 and not converged and dice_score(last, mask) >= config.tol:
            converged.append(mask)
        last = mask

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*found no organ")  # The tables count empty predictions.
        segmentation = segment(
            models,
            case.intensities(),
            tmax=config.tmax,
            tol=math.inf if config.all_rounds else config.tol,
            vote=config.vote,
            organ=case.label if config.with_label else None,
            precision=config.precision,
            observe=observe,
        )
    reached = (number for number, value in enumerate(segmentation.rdsc, start=1) if value >= config.tol)
    mask = converged[0] if converged else segmentation.mask
    result = CaseResult(
        name=case.name,
        patient=case.patient,
        dsc_per_round=dsc,
        hd95_per_round=hd95,
        rdsc_per_round=segmentation.rdsc,
        seconds_per_round=segmentation.seconds_per_round,
        crops_per_round=segmentation.crops,
        iterations=next(reached, None),
        asd=average_surface_distance(mask, case.label, case.spacing),
        nsd=surface_dice(mask, case.label, case.spacing, config.tolerance),
    )
    return result, shown_slice(case, segmentation)


def shown_slice(case: Case, segmentation: Segmentation) -> Overlay:
    """Return the slice with most organ as it is in the last round, and points as the pixel term would choose there."""
    j = int(case.label.sum(axis=(1, 2)).argmax())
    height, width = case.label[j].shape
    area = bounding_box(torch.from_numpy(segmentation.mask[j])) or Box(0, height, 0, width)
    logits = crop(torch.from_numpy(segmentation.probability[j]).logit(eps=1e-6), area)
    points = uncertain_points(logits[None, None], SHOWN_POINTS, generator=torch.Generator().manual_seed(0))[0]
    pixels = np.array([area.left, area.top]) + points.double().numpy() * area.size[::-1] - 0.5
    return Overlay(
        case.intensities(j), np.array(case.label[j]), segmentation.mask[j], pixels, segmentation.probability[j]
    )


def save_record(record: Record, overlay: Overlay, path: Path) -> None:
    """Write a record to `path`, .json, and the slice to show beside it, .npz, each whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path.with_suffix(".npz")) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **{name: value for name, value in vars(overlay).items() if value is not None})
    content = asdict(record)
    # JSON has no infinity.
    for name in ("hd95_per_round", "asd"):
        content["result"][name] = _replaced(content["result"][name], math.inf, None)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def load_record(path: Path) -> Record:
    """Return what :func:`save_record` wrote.

    Raises:
        ValueError: the file is damaged or of another version.
    """
    try:
        return record_of(json.loads(path.read_text()))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"expected {path} to be the result of a case, but it cannot be read: {error}") from error


def record_of(content: Mapping[str, Any]) -> Record:
    """Return a record from what its JSON holds.

    Raises:
        KeyError, TypeError: it is of another version.
    """
    result = {
        name: _replaced(value, None, math.inf) if name in ("hd95_per_round", "asd") else value
        for name, value in content["result"].items()
    }
    parts = {"config": EvaluationConfig(**content["config"]), "result": CaseResult(**result)}
    return Record(**{**content, **parts})


def load_overlay(path: Path) -> Overlay:
    """Return the slice to show that :func:`save_record` wrote beside `path`."""
    with np.load(path.with_suffix(".npz")) as arrays:
        return Overlay(**arrays)


def _replaced(value: Any, old: float | None, new: float | None) -> Any:
    return [_replaced(item, old, new) for item in value] if isinstance(value, list) else new if value == old else value
