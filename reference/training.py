"""Training of one view's coarse-to-fine model: the stages and schedules of the paper, checkpoints, a log."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal, cast

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from multilevel_loss import DiceLoss, LinearRamp, MLLoss, StepAt, uncertain_points
from multilevel_loss.schedules import Schedule
from reference.data import Unit
from reference.evaluation import dice_score
from reference.models import CoarseToFine, Stage, build_model
from reference.models.crop import image_coords

LAST, BEST = "last.ckpt", "best.ckpt"


@dataclass(frozen=True)
class TrainingConfig:
    """How one view is trained; the defaults are the paper's (§4.1.1, §4.3.1). Epochs count from 0.

    Args:
        epochs: passes over the training units.
        joint_epoch: where stage S ends and I begins.
        coarse_box_epoch: where stage I ends and J begins.
        learning_rate: Adam's, at first.
        halving_epoch: first epoch of half the learning rate.
        halving_period: epochs from one halving to the next.
        reset_epoch: where the learning rate starts again, to be halved each `halving_period`; None never.
        alpha: weight of the boundary term, a number or a schedule.
        beta: weight of the uncertain points, likewise.
        num_points: uncertain points a unit; the paper gives none.
        jitter: whether the crop's margins are random.
        patience: epochs without a better validation DSC after which training stops; None trains all epochs.
        seed: of the order of the units, the jitter and the points.
        accelerator: as Fabric names it: "auto", "cpu", "cuda", ...
        precision: as Fabric names it.
    """

    epochs: int = 20
    joint_epoch: int = 2
    coarse_box_epoch: int = 8
    learning_rate: float = 1e-5
    halving_epoch: int = 8
    halving_period: int = 2
    reset_epoch: int | None = 12
    alpha: float | Schedule = field(default_factory=lambda: LinearRamp(0, 1, step=0.2))
    beta: float | Schedule = field(default_factory=lambda: StepAt(12))
    num_points: int = 2048
    jitter: bool = True
    patience: int | None = None
    seed: int = 0
    accelerator: str = "auto"
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"

    def stage(self, epoch: int) -> Stage:
        """Return the stage of an epoch; see :class:`CoarseToFine`."""
        return "S" if epoch < self.joint_epoch else "I" if epoch < self.coarse_box_epoch else "J"

    def learning_rate_in(self, epoch: int) -> float:
        """Return the learning rate of an epoch."""
        if self.reset_epoch is not None and epoch >= self.reset_epoch:
            halvings = (epoch - self.reset_epoch) // self.halving_period
        else:
            halvings = max(0, (epoch - self.halving_epoch) // self.halving_period + 1)
        return self.learning_rate * 0.5**halvings

    def as_dict(self) -> dict[str, float | str | None]:
        """Return the options as JSON holds them, a schedule by what it prints."""
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        return {name: repr(value) if callable(value) else value for name, value in values.items()}


@dataclass(frozen=True)
class EpochRecord:
    """One line of the log: what an epoch was trained with and what came of it.

    Attributes:
        epoch: counted from 0.
        stage: S, I or J.
        learning_rate: Adam's.
        alpha: weight of the boundary term.
        beta: weight of the uncertain points.
        loss: mean of what was minimized, ω₁·coarse + ω₂·(region + α·boundary + β·pixel).
        coarse: mean Dice loss of the coarse model.
        region: mean region term of the fine model.
        boundary: mean boundary term; None while its weight is 0, since it is not computed then.
        pixel: mean uncertain-point term, likewise.
        coarse_dsc: mean DSC of the coarse model over the validation units.
        fine_dsc: mean DSC of the fine model over the validation units, boxes from the coarse one.
        seconds: wall-clock time of the epoch, validation included.
    """

    epoch: int
    stage: Stage
    learning_rate: float
    alpha: float
    beta: float
    loss: float
    coarse: float
    region: float
    boundary: float | None
    pixel: float | None
    coarse_dsc: float
    fine_dsc: float
    seconds: float


def train(
    model: CoarseToFine,
    training: Dataset[Unit],
    validation: Dataset[Unit],
    config: TrainingConfig,
    out: Path,
    *,
    resume: bool = False,
) -> list[EpochRecord]:
    """Train `model` in place, one unit a step, and keep its last and its best state.

    After every epoch `out` holds last.ckpt (what resuming needs), best.ckpt (of the best `fine_dsc` so far), log.csv
    and log.json, each written whole or not at all. An interrupt (Ctrl-C) is passed on and leaves the last epoch's.

    Args:
        model: the model of one view; it ends on the device that it was trained on, with its last weights.
        training: units to learn from.
        validation: units to choose the best epoch by.
        config: how to train.
        out: folder of the checkpoints and the log; made where missing.
        resume: go on after out/last.ckpt, as if never interrupted; start from `model` where there is none.

    Returns:
        The record of every epoch, those before a resumption included.

    Raises:
        ValueError: a data set is empty, or out/last.ckpt was trained with another `config`; only more epochs, another
            `patience` or another `accelerator` may follow.
        FloatingPointError: the loss of an epoch is not finite; the checkpoints are those of the epoch before.
    """
    for name, units in (("training", training), ("validation", validation)):
        if len(cast(Sized, units)) == 0:
            raise ValueError(f"expected `{name}` to hold at least one unit, got none")
    run = _Run(model, config, out)
    if resume and (out / LAST).exists():
        run.load()
    run.fit(training, validation)
    return run.history


def load_model(checkpoint: Path) -> CoarseToFine:
    """Return the model of a checkpoint of :func:`train` on the CPU, in eval mode."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = build_model(**state["model_config"])
    model.load_state_dict(state["model"])
    return model.eval()


class _Run:
    """A training under way: what a checkpoint holds, and how an epoch changes it."""

    def __init__(self, model: CoarseToFine, config: TrainingConfig, out: Path) -> None:
        self.config, self.out, self.model = config, out, model
        self.fabric = Fabric(accelerator=config.accelerator, devices=1, precision=config.precision)
        optimizer = torch.optim.Adam(model.parameters(), config.learning_rate, fused=True)
        self.network, self.optimizer = self.fabric.setup(model, optimizer)
        self.loss = MLLoss(
            region=DiceLoss(average="micro"),
            alpha=config.alpha,
            beta=config.beta,
            mode="multilabel",
            return_components=True,
        )
        self.generator = torch.Generator().manual_seed(config.seed)
        self.history: list[EpochRecord] = []

    def fit(self, training: Dataset[Unit], validation: Dataset[Unit]) -> None:
        """Train the epochs that are left, saving each."""
        order = DataLoader(training, batch_size=1, shuffle=True, generator=self.generator)
        loaders = self.fabric.setup_dataloaders(order, DataLoader(validation, batch_size=1))
        if not self.history:
            (self.out / BEST).unlink(missing_ok=True)
            self.save()
        with _progress() as progress:
            task = progress.add_task("", total=self.config.epochs * sum(map(len, loaders)), dsc=math.nan)
            progress.advance(task, len(self.history) * sum(map(len, loaders)))
            while len(self.history) < self.config.epochs and not self._is_stale():
                epoch = len(self.history)
                progress.update(task, description=f"epoch {epoch + 1} {self.config.stage(epoch)}")
                record = self._epoch(epoch, *(_advancing(loader, progress, task) for loader in loaders))
                self.history.append(record)
                progress.update(task, dsc=max(each.fine_dsc for each in self.history))
                self.save()

    def _epoch(self, epoch: int, training: Iterator[Unit], validation: Iterator[Unit]) -> EpochRecord:
        start = time.perf_counter()
        self.loss.set_epoch(epoch)
        rate = self.config.learning_rate_in(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        means = self._train(self.config.stage(epoch), training)
        if not math.isfinite(means["loss"]):
            raise FloatingPointError(
                f"the loss of epoch {epoch} is {means['loss']}; {self.out / LAST} is the one before"
            )
        coarse_dsc, fine_dsc = self._validate(validation)
        weights = self.loss.weights
        return EpochRecord(
            epoch=epoch,
            stage=self.config.stage(epoch),
            learning_rate=rate,
            alpha=weights["boundary"],
            beta=weights["pixel"],
            loss=means["loss"],
            coarse=means["coarse"],
            region=means["region"],
            boundary=means.get("boundary"),
            pixel=means.get("pixel"),
            coarse_dsc=coarse_dsc,
            fine_dsc=fine_dsc,
            seconds=time.perf_counter() - start,
        )

    def _train(self, stage: Stage, units: Iterator[Unit]) -> dict[str, float]:
        """Return the mean of the loss and of each of its terms."""
        self.network.train()
        jitter = self.generator if self.config.jitter else None
        values: dict[str, list[Tensor]] = defaultdict(list)
        for unit in units:
            image, label, spacing = unit["image"], unit["label"], unit["spacing"]
            self.optimizer.zero_grad()
            prediction = self.network(image, label, stage=stage, jitter=jitter)
            # Drawn in epochs without them, too: trainings with and without the term then see the same order and crops.
            points = uncertain_points(
                prediction.points, self.config.num_points, mode="multilabel", generator=self.generator
            )
            loss, terms = self.loss(
                prediction.fine,
                label,
                coarse_input=prediction.coarse,
                # The smaller pixel side is the unit of length: with square pixels the paper's, whatever the resolution,
                # and true to the shape of others.
                spacing=spacing / spacing.amin(),
                point_coords=image_coords(points, prediction.box, (label.shape[2], label.shape[3])),
            )
            self.fabric.backward(loss)
            self.optimizer.step()
            for name, term in {"loss": loss, **terms}.items():
                values[name].append(term.detach())
        return {name: torch.stack(each).mean().item() for name, each in values.items()}

    @torch.no_grad()
    def _validate(self, units: Iterator[Unit]) -> tuple[float, float]:
        """Return the mean DSC of the coarse and of the fine model over units."""
        self.network.eval()
        scores = []
        for unit in units:
            prediction = self.network(unit["image"])
            coarse, fine, truth = prediction.coarse >= 0, prediction.fine >= 0, unit["label"] > 0.5
            # As in testing, the fine model is not asked where the coarse one finds nothing.
            masks = (coarse, fine & coarse.any())
            scores.append([dice_score(mask.numpy(force=True), truth.numpy(force=True)) for mask in masks])
        coarse_dsc, fine_dsc = torch.tensor(scores, dtype=torch.float64).mean(0).tolist()
        return coarse_dsc, fine_dsc

    def _is_stale(self) -> bool:
        if self.config.patience is None or not self.history:
            return False
        scores = [record.fine_dsc for record in self.history]
        return len(scores) - 1 - scores.index(max(scores)) >= self.config.patience

    def save(self) -> None:
        """Write the checkpoints and the log."""
        self.out.mkdir(parents=True, exist_ok=True)
        records = [asdict(record) for record in self.history]
        state = {
            "model": self.model.state_dict(),
            "model_config": self.model.config,
            "optimizer": self.optimizer.state_dict(),
            "loss": self.loss.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "generator": self.generator.get_state(),
            "config": self.config.as_dict(),
            "history": records,
        }
        scores = [record.fine_dsc for record in self.history]
        with _replacing(self.out / LAST) as last:
            torch.save(state, last)
            if scores and scores.index(max(scores)) == len(scores) - 1:
                with _replacing(self.out / BEST) as best:
                    shutil.copyfile(last, best)
        table = io.StringIO()
        writer = csv.DictWriter(table, [column.name for column in fields(EpochRecord)])
        writer.writeheader()
        writer.writerows(records)
        log = json.dumps({"config": self.config.as_dict(), "epochs": records}, indent=2)
        for name, text in (("log.csv", table.getvalue()), ("log.json", log)):
            with _replacing(self.out / name) as path:
                path.write_text(text, encoding="utf-8", newline="")

    def load(self) -> None:
        """Return to the state of the last checkpoint."""
        state = torch.load(self.out / LAST, map_location="cpu", weights_only=True)
        old, new = state["config"], self.config.as_dict()
        changed = sorted(name for name in new if new[name] != old.get(name))
        changed = [name for name in changed if name not in ("epochs", "patience", "accelerator")]
        if changed or state["model_config"] != self.model.config:
            raise ValueError(
                f"expected `config` and `model` to be those of {self.out / LAST}, got "
                + ", ".join(
                    [f"{name} {new[name]!r} instead of {old.get(name)!r}" for name in changed]
                    or [f"model {self.model.config} instead of {state['model_config']}"]
                )
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.loss.load_state_dict(state["loss"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.generator.set_state(state["generator"])
        self.history = [EpochRecord(**record) for record in state["history"]]


def _advancing(units: Iterable[Unit], progress: Progress, task: TaskID) -> Iterator[Unit]:
    for unit in units:
        yield unit
        progress.advance(task)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to that takes the place of `path` once it is written whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("best DSC {task.fields[dsc]:.3f}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
