"""Models that answer by formula, and a run on disk that holds such models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from reference.config import RunConfig, write_config
from reference.data import Case
from reference.data.store import write_case

Function = Callable[[Tensor], Tensor]

READING = {"window": [-100.0, 240.0], "labels": [1], "size": None, "channel": None}


class Stub(nn.Module):
    """The coarse logits are a function of a unit, the fine ones of (saliency, image) crops."""

    def __init__(self, coarse: Function, fine: Function) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))
        self.answers = coarse, fine
        self.crops: list[tuple[int, ...]] = []
        self.config = {"name": "mll", "width": 2}

    def coarse_logits(self, image: Tensor) -> Tensor:
        return self.answers[0](image)

    def fine_input(self, image: Tensor, probability: Tensor) -> Tensor:
        return torch.cat([probability, image], 1)

    def fine_logits(self, seen: Tensor) -> Tensor:
        self.crops.append(tuple(seen.shape))
        return self.answers[1](seen)


def bright(image: Tensor) -> Tensor:
    return 40 * (image - 0.5)


def bright_crop(seen: Tensor) -> Tensor:
    return bright(seen[:, 3:])


def bright_model(_: Path) -> Stub:
    """Stand in for `load_model`."""
    return Stub(bright, bright_crop)


def write_run(folder: Path, store: Path, axes: tuple[int, ...] = (0, 1, 2), **options: object) -> Path:
    """Write the configuration of a run and empty checkpoints."""
    folder.mkdir(parents=True)
    write_config(RunConfig.of({"store": str(store), "width": 2, **options}), folder / "config.yaml")
    for axis in axes:
        (folder / f"axis{axis}").mkdir()
        for name in ("best", "last"):
            (folder / f"axis{axis}" / f"{name}.ckpt").write_text(f"{folder.name} {axis} {name}")
    return folder


def write_store(store: Path, count: int = 4, layout: str = "nifti", **reading: object) -> Path:
    """Write cases whose organ is a bright box of 0, 72, 144, … voxels, one of which is dark."""
    for number in range(count):
        image = np.full((6, 24, 26), -50, dtype=np.int16)
        label = np.zeros(image.shape, dtype=bool)
        label[1:5, 8:14, 8 : 8 + 3 * number] = True
        image[label] = 200
        image[2, 9, 9] = -50
        case = Case(f"case{number}", f"patient{number}", image, label, (3.0, 1.0, 1.5), (-100.0, 240.0))
        source = {"path": "elsewhere", "sha256": str(number)}
        write_case(store, case, {"layout": layout, "reading": READING | reading, "sources": [source]})
    return store


def change_record(folder: Path, **values: object) -> None:
    record = json.loads((folder / "case.json").read_text())
    (folder / "case.json").write_text(json.dumps(record | values))
