"""Training of one view's coarse-to-fine model: the stages and schedules of the paper, checkpoints, a log."""

from __future__ import annotations

import math
import os
import shutil
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset

from reference.config import TrainingConfig, changed_options
from reference.data import Unit
from reference.files import replacing
from reference.history import EpochRecord, write_history
from reference.models import CoarseToFine, build_model
from reference.objective import Objective

LAST, BEST = "last.ckpt", "best.ckpt"

Draws = Literal["order", "jitter", "points", "dropout"]


def make_fabric(config: TrainingConfig) -> Fabric:
    """Return Fabric, launched, on the devices that torchrun or `fabric run` made processes for, or `config` names.

    Several devices each train on units of their own and average the gradients.
    """
    options: dict[str, Any] = {
        name: getattr(config, name) for name in ("accelerator", "devices", "num_nodes", "precision")
    }
    if "LOCAL_WORLD_SIZE" in os.environ:
        options["devices"] = int(os.environ["LOCAL_WORLD_SIZE"])
        options["num_nodes"] = int(os.environ["WORLD_SIZE"]) // options["devices"]
    if options["devices"] * options["num_nodes"] > 1:
        # Stage S has no use for the saliency, and the first epochs of the MLN none for its fusion.
        options["strategy"] = "ddp_find_unused_parameters_true"
    # What is asked of `fabric run` comes by the environment, and Fabric takes nothing else beside it, nor a launch.
    fabric = Fabric(**{name: value for name, value in options.items() if f"LT_{name.upper()}" not in os.environ})
    if os.environ.get("LT_CLI_USED") != "1":
        fabric.launch()
    return fabric


def train(
    model: CoarseToFine,
    training: Dataset[Unit],
    validation: Dataset[Unit],
    config: TrainingConfig,
    out: Path,
    *,
    resume: bool = False,
    fabric: Fabric | None = None,
) -> list[EpochRecord]:
    """Train `model` in place, one unit a step and device, and keep its last and its best state.

    After every epoch `out` holds last.ckpt (what resuming needs), best.ckpt (of the best `fine_dsc` so far), log.csv
    and log.json, each written whole or not at all, so that a process killed at any moment has lost one epoch at most.
    An interrupt (Ctrl-C) is passed on; SIGTERM ends the program after the step under way.

    Every process of a distributed training calls this. One writes; all must see `out`.

    Args:
        model: the model of one view; it ends on the device that it was trained on, with its last weights.
        training: units to learn from.
        validation: units to choose the best epoch by.
        config: how to train.
        out: folder of the checkpoints and the log; made where missing.
        resume: go on after out/last.ckpt, as if never interrupted; start from `model` where there is none. On the CPU,
            and as many devices, that is equal bit for bit.
        fabric: where to train, launched; :func:`make_fabric` of `config` when None.

    Returns:
        The record of every epoch, those before a resumption included.

    Raises:
        ValueError: a data set is empty, or out/last.ckpt was trained with another `config`; only those of
            :data:`reference.config.LATER` may change.
        FloatingPointError: the loss of an epoch is not finite; the checkpoints are those of the epoch before.
        SystemExit: the process received SIGTERM.
    """
    for name, units in (("training", training), ("validation", validation)):
        if len(cast(Sized, units)) == 0:
            raise ValueError(f"expected `{name}` to hold at least one unit, got none")
    run = _Run(model, config, out, make_fabric(config) if fabric is None else fabric)
    if resume and (out / LAST).exists():
        run.load()
    with _terminable() as run.terminated:
        run.fit(training, validation)
    return run.history


def load_model(checkpoint: Path) -> CoarseToFine:
    """Return the model of a checkpoint of :func:`train` on the CPU, in eval mode."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = build_model(**state["model_config"])
    model.load_state_dict(state["model"])
    return model.eval()


def seed_of(draws: Draws, seed: int, epoch: int, rank: int = 0) -> int:
    """Return the seed of random draws in an epoch of a process, from that of the training.

    Purposes do not share a generator: trainings with and without points, say, then see the same crops.
    """
    return int(np.random.SeedSequence([seed, epoch, rank, *draws.encode()]).generate_state(1)[0])


class _Run:
    """A training under way: what a checkpoint holds, and how an epoch changes it.

    An epoch's random draws follow from the seed, the epoch and the process alone: a checkpoint holds none of them.
    """

    terminated: threading.Event

    def __init__(self, model: CoarseToFine, config: TrainingConfig, out: Path, fabric: Fabric) -> None:
        self.config, self.out, self.model, self.fabric = config, out, model, fabric
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format
        model.to(memory_format=self.layout)  # type: ignore[call-overload]  # torch's stub lacks it
        self.objective = Objective(model, config)
        optimizer = torch.optim.Adam(model.parameters(), config.learning_rate, fused=True)
        self.network, self.optimizer = fabric.setup(self.objective, optimizer)
        self.history: list[EpochRecord] = []

    def fit(self, training: Dataset[Unit], validation: Dataset[Unit]) -> None:
        """Train the epochs that are left, saving each."""
        rank, ranks = self.fabric.global_rank, self.fabric.world_size
        self.fabric.barrier()  # until all have looked for a checkpoint to resume
        if self.fabric.is_global_zero:
            self.out.mkdir(parents=True, exist_ok=True)
            if not self.history:
                (self.out / BEST).unlink(missing_ok=True)
                self._save()
            write_history(self.out, self.config.as_dict(), self.history)
        shard = Subset(validation, range(rank, len(cast(Sized, validation)), ranks))
        steps = -(-len(cast(Sized, training)) // ranks) + len(shard)
        with _progress(self.fabric.is_global_zero) as progress:
            task = progress.add_task("", total=self.config.epochs * steps, dsc=math.nan)
            progress.advance(task, len(self.history) * steps)
            while len(self.history) < self.config.epochs and not self._is_stale():
                epoch = len(self.history)
                progress.update(task, description=f"epoch {epoch + 1} {self.config.stage(epoch)}")
                order: DistributedSampler[Unit] = DistributedSampler(
                    training, ranks, rank, seed=seed_of("order", self.config.seed, epoch)
                )
                loaders = (self._loader(training, sampler=order), self._loader(shard))
                record = self._epoch(epoch, *(_advancing(loader, progress, task) for loader in loaders))
                self.history.append(record)
                progress.update(task, dsc=max(each.fine_dsc for each in self.history))
                if self.fabric.is_global_zero:
                    self._save()
                    write_history(self.out, self.config.as_dict(), self.history)

    def _loader(self, units: Dataset[Unit], **options: Any) -> Iterable[Unit]:
        pinned = self.fabric.device.type == "cuda"
        loader = DataLoader(units, num_workers=self.config.workers, pin_memory=pinned, **options)
        return cast(Iterable[Unit], self.fabric.setup_dataloaders(loader, use_distributed_sampler=False))

    def _generator(self, draws: Draws, epoch: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed_of(draws, self.config.seed, epoch, self.fabric.global_rank))

    def _epoch(self, epoch: int, training: Iterator[Unit], validation: Iterator[Unit]) -> EpochRecord:
        start = time.perf_counter()
        self.objective.set_epoch(epoch)
        rate = self.config.learning_rate_in(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        means = self._train(epoch, training)
        if not math.isfinite(means["loss"]):
            raise FloatingPointError(
                f"the loss of epoch {epoch} is {means['loss']}; {self.out / LAST} is the one before"
            )
        coarse_dsc, fine_dsc = self._validate(validation)
        weights = self.objective.loss.weights
        return EpochRecord(
            epoch=epoch,
            stage=self.config.stage(epoch),
            learning_rate=rate,
            alpha=weights["boundary"],
            beta=weights["pixel"],
            gamma=weights.get("fusion", 0.0),
            loss=means["loss"],
            coarse=means["coarse"],
            region=means["region"],
            boundary=means.get("boundary"),
            pixel=means.get("pixel"),
            fusion=means.get("fusion"),
            coarse_dsc=coarse_dsc,
            fine_dsc=fine_dsc,
            seconds=time.perf_counter() - start,
        )

    def _train(self, epoch: int, units: Iterator[Unit]) -> dict[str, float]:
        """Return the mean of the loss and of each of its terms."""
        self.network.train()
        # Dropout draws from torch's own generator, of whatever device.
        torch.manual_seed(seed_of("dropout", self.config.seed, epoch, self.fabric.global_rank))
        stage, points = self.config.stage(epoch), self._generator("points", epoch)
        jitter = self._generator("jitter", epoch) if self.config.jitter else None
        values: dict[str, list[Tensor]] = defaultdict(list)
        for unit in units:
            self.optimizer.zero_grad()
            loss, terms = self.network(self._laid_out(unit), stage=stage, jitter=jitter, points=points)
            self.fabric.backward(loss)
            self.optimizer.step()
            for name, term in {"loss": loss.detach(), **terms}.items():
                values[name].append(term)
            self._end_if_terminated()
        means = self.fabric.all_reduce(torch.stack([torch.stack(each).mean() for each in values.values()]))
        return dict(zip(values, cast(Tensor, means).tolist(), strict=True))

    @torch.no_grad()
    def _validate(self, units: Iterator[Unit]) -> tuple[float, float]:
        """Return the mean DSC of the coarse and of the fine model over units."""
        self.model.eval()
        sums = torch.zeros(3, device=self.fabric.device)
        for unit in units:
            with self.fabric.autocast():
                prediction = self.model(self._laid_out(unit)["image"])
            coarse, fine, truth = prediction.coarse >= 0, prediction.fine >= 0, unit["label"] > 0.5
            # As in testing, the fine model is not asked where the coarse one finds nothing.
            scores = [_dice(mask, truth) for mask in (coarse, fine & coarse.any())]
            sums += torch.stack([*scores, torch.ones_like(scores[0])])
            self._end_if_terminated()
        coarse_sum, fine_sum, count = cast(Tensor, self.fabric.all_reduce(sums, reduce_op="sum")).tolist()
        return coarse_sum / count, fine_sum / count

    def _laid_out(self, unit: Unit) -> Unit:
        return Unit({**unit, "image": unit["image"].contiguous(memory_format=self.layout)})

    def _is_stale(self) -> bool:
        if self.config.patience is None or not self.history:
            return False
        scores = [record.fine_dsc for record in self.history]
        return len(scores) - 1 - scores.index(max(scores)) >= self.config.patience

    def _end_if_terminated(self) -> None:
        if self.terminated.is_set():
            raise SystemExit(
                f"ended by SIGTERM in epoch {len(self.history)} (counted from 0): {self.out / LAST} holds the training "
                "up to there, and resuming goes on from it"
            )

    def _save(self) -> None:
        """Write the checkpoints."""
        state = {
            "model": self.model.state_dict(),
            "model_config": self.model.config,
            "optimizer": self.optimizer.state_dict(),
            "loss": self.objective.loss.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "config": self.config.as_dict(),
            "history": [asdict(record) for record in self.history],
        }
        scores = [record.fine_dsc for record in self.history]
        with replacing(self.out / LAST) as last:
            torch.save(state, last)
            if scores and scores.index(max(scores)) == len(scores) - 1:
                with replacing(self.out / BEST) as best:
                    shutil.copyfile(last, best)

    def load(self) -> None:
        """Return to the state of the last checkpoint."""
        state = torch.load(self.out / LAST, map_location="cpu", weights_only=True)
        changed = changed_options(state["config"], self.config.as_dict())
        changed += changed_options(state["model_config"], self.model.config)
        if changed:
            raise ValueError(
                f"expected `config` and `model` to be those of {self.out / LAST}, got {', '.join(changed)}"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.objective.loss.load_state_dict(state["loss"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.history = [EpochRecord(**record) for record in state["history"]]


def _dice(mask: Tensor, truth: Tensor) -> Tensor:
    """Return the DSC as :func:`dice_score` does, on the device: reading it there would wait for every unit."""
    total = mask.sum() + truth.sum()
    return torch.where(total > 0, 2 * (mask & truth).sum() / total, 1.0)


def _advancing(units: Iterable[Unit], progress: Progress, task: TaskID) -> Iterator[Unit]:
    for unit in units:
        yield unit
        progress.advance(task)


@contextmanager
def _terminable() -> Iterator[threading.Event]:
    """Give an event that SIGTERM sets instead of ending the program; only the main thread can."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


def _progress(shown: bool) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("best DSC {task.fields[dsc]:.3f}"),
        TimeRemainingColumn(),
        console=console,
        disable=not (shown and console.is_terminal),
    )
