"""Training of one view's coarse-to-fine model: the three stages, the schedules and the checkpoints of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from multilevel_loss.schedules import LinearRamp, StepAt
from reference.models import CoarseToFine

Schedule = float | LinearRamp | StepAt


@dataclass(frozen=True)
class TrainingConfig:
    """How one view is trained; the defaults are the paper's. Epochs count from 0."""

    epochs: int = 20
    joint_epoch: int = 2
    coarse_box_epoch: int = 8
    learning_rate: float = 1e-5
    halving_epoch: int = 8
    halving_period: int = 2
    reset_epoch: int | None = 12
    alpha: Schedule = field(default_factory=lambda: LinearRamp(0.0, 1.0, step=0.2))
    beta: Schedule = field(default_factory=lambda: StepAt(12))
    coarse_weight: float = 1 / 3
    fine_weight: float = 2 / 3
    jitter: bool = True
    patience: int | None = None
    seed: int = 0
    accelerator: str = "auto"
    precision: str = "32-true"


@dataclass(frozen=True)
class EpochRecord:
    """One line of the log: what an epoch was trained with and what came of it."""

    epoch: int
    stage: str
    learning_rate: float
    alpha: float
    beta: float
    loss: float
    coarse: float
    region: float
    boundary: float
    pixel: float
    coarse_dsc: float
    fine_dsc: float
    seconds: float


def train(
    model: CoarseToFine,
    training: Dataset[Mapping[str, Tensor]],
    validation: Dataset[Mapping[str, Tensor]],
    config: TrainingConfig,
    out: Path,
    *,
    resume: bool = False,
) -> list[EpochRecord]:
    """Train `model` in place; write last.ckpt, best.ckpt, history.csv, history.json and config.json under `out`."""


def load_model(checkpoint: Path) -> CoarseToFine:
    """Return the model of a checkpoint (last.ckpt or best.ckpt) in eval mode, on the CPU."""
