"""Runs on disk: the models that a training left, and what they are called."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch

from reference.config import CONFIG, RunConfig, read_options
from reference.data import Case
from reference.data.layouts import Reading, Window
from reference.data.prepare import sha256
from reference.data.store import find_cases, read_record
from reference.files import replacing
from reference.models import CoarseToFine
from reference.training import load_model

Checkpoint = Literal["best", "last"]

READING = "reading.json"
"""Name of the file in a run that says how the scans of its store were read."""


@dataclass(frozen=True, eq=False)
class Run:
    """A trained run.

    Attributes:
        folder: where it lies.
        config: what it trained and how.
        models: by the axis that each cuts.
        checkpoints: SHA-256 of each model's file, by axis.
    """

    folder: Path
    config: RunConfig
    models: dict[int, CoarseToFine]
    checkpoints: dict[str, str]


def read_run(folder: Path, checkpoint: Checkpoint, device: torch.device) -> Run:
    """Return the models of the views that a run has trained.

    Args:
        folder: holds config.yaml and, for each view, axis0, axis1 or axis2 with best.ckpt and last.ckpt.
        checkpoint: "best" of the epochs in validation, or the "last" one.
        device: where the models shall be.

    Raises:
        FileNotFoundError: no configuration, or no checkpoint.
        ValueError: a configuration or a checkpoint that cannot be read.
    """
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"expected a run with {CONFIG} at {folder}, found none")
    config = RunConfig.of(read_options(folder / CONFIG))
    paths = {axis: folder / f"axis{axis}" / f"{checkpoint}.ckpt" for axis in range(3)}
    paths = {axis: path for axis, path in paths.items() if path.is_file()}
    if not paths:
        raise FileNotFoundError(f"expected {checkpoint}.ckpt in axis0, axis1 or axis2 of {folder}, found none")
    models = {}
    for axis, path in paths.items():
        try:
            models[axis] = load_model(path).to(device)
        except (RuntimeError, KeyError, EOFError, OSError, UnpicklingError) as error:
            raise ValueError(f"expected {path} to be a checkpoint, but it cannot be read: {error}") from error
    return Run(folder, config, models, {str(axis): sha256(path) for axis, path in paths.items()})


def method_name(config: RunConfig) -> str:
    """Return the name of a run's loss or model, as the paper's tables have it."""
    if config.model == "rstn":
        return "RSTN"
    if config.model == "mln":
        pixel = config.model_options.get("pixel_module", "transformer") == "transformer"
        guidance = config.model_options.get("fusion_module", "guidance") == "guidance"
        replaced = "&".join([*([] if pixel else ["Pixel"]), *([] if guidance else ["MLSG"])])
        return f"MLN w/o {replaced} module" if replaced else "MLN"
    boundary, pixel = config.training.alpha != 0, config.training.beta != 0
    if boundary and pixel:
        return "MLL"
    terms = ["Region", *(["boundary"] if boundary else []), *(["pixel"] if pixel else [])]
    return f"{' + '.join(terms)} loss"


def keep_reading(config: RunConfig, folder: Path) -> None:
    """Write into a run how the scans of its store were read; nothing where the store does not say."""
    try:
        reading = asdict(stored_reading(config.store))
    except ValueError:
        return
    with replacing(folder / READING) as temporary:
        temporary.write_text(json.dumps(reading) + "\n")


def read_reading(run: Run) -> Reading:
    """Return how the scans were read that a run was trained on, as it says itself, or else its store.

    Raises:
        ValueError: neither says, or the store holds cases read in several ways.
    """
    kept = run.folder / READING
    return reading_of(json.loads(kept.read_text())) if kept.is_file() else stored_reading(run.config.store)


def stored_reading(store: Path) -> Reading:
    """Return how the cases of a store were read.

    Raises:
        ValueError: the store is gone, holds nothing, does not say, or holds cases read in several ways.
    """
    readings = [read_record(folder).get("reading") for folder in find_cases(store)]
    if not readings or readings[0] is None or any(reading != readings[0] for reading in readings):
        found = f"{len(readings)} cases" if readings else "none"
        raise ValueError(
            f"expected cases that were all read in one way in {store}, the run's store, found {found}: say --window"
        )
    return reading_of(readings[0])


def reading_of(content: Mapping[str, Any]) -> Reading:
    """Return the reading that JSON holds, which has lists for tuples."""
    window: Window = "percentiles" if content["window"] == "percentiles" else tuple(content["window"])
    return Reading(window, tuple(content["labels"]), content["size"], content["channel"])


def tested_cases(run: Run, cases: Sequence[Case]) -> list[Case]:
    """Return the cases of a store that a run has left out for testing.

    Raises:
        ValueError: it was trained on all of them, or the store holds too few.
    """
    if run.config.fold is None:
        raise ValueError(f"expected {run.folder} to have left out a fold, but it was trained on all cases")
    return run.config.split(cases).test
