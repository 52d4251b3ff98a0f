"""Tiny trainings on made squares, for tests, and as a program for other processes.

`squares.py OUT` has OUT/mll and OUT/rstn trained by processes that are killed in the second epoch, OUT/mln by one that
is killed when half of the checkpoint of the third is written, and OUT/two by two processes at once, which save their
weights, too. All are forked from one, as importing takes longer than training.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.utils.data import Dataset

from multilevel_loss import LinearRamp, StepAt
from reference.config import TrainingConfig
from reference.data import Unit
from reference.models import CoarseToFine, build_model
from reference.training import make_fabric, train

SIZE = (36, 44)
CONFIG = TrainingConfig(
    epochs=4,
    joint_epoch=1,
    coarse_box_epoch=2,
    learning_rate=3e-3,
    halving_epoch=1,
    reset_epoch=3,
    alpha=LinearRamp(0, 1, step=0.5),
    beta=StepAt(2),
    gamma=StepAt(2),
    num_points=32,
    accelerator="cpu",
)


class Squares(Dataset[Unit]):
    """Units of a bright rectangle on noise, narrower in the last slice.

    The `at`-th read, counted from 1, calls `then` first.
    """

    def __init__(
        self,
        count: int,
        *,
        at: int | None = None,
        then: Callable[[], object] | None = None,
        spacing: tuple[float, float] = (1.0, 1.0),
        size: tuple[int, int] = SIZE,
    ) -> None:
        self.count = count
        self.reads = 0
        self.at, self.then = at, then
        self.spacing, self.size = spacing, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Unit:
        self.reads += 1
        if self.reads == self.at and self.then is not None:
            self.then()
        generator = torch.Generator().manual_seed(index)
        top, left = torch.randint(2, 22, (2,), generator=generator).tolist()
        label = torch.zeros(3, *self.size)
        label[:, top : top + 11, left : left + 9] = 1
        label[2, :, left + 6 :] = 0
        image = 0.2 * torch.rand(label.shape, generator=generator) + 0.6 * label
        return Unit(image=image, label=label, spacing=torch.tensor(self.spacing))


def tiny(name: str = "mll", seed: int = 0, width: int = 2, num_points: int = 32) -> CoarseToFine:
    return build_model(name, width=width, num_points=num_points, generator=torch.Generator().manual_seed(seed))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_while_saving(number: int) -> None:
    """Let the `number`-th checkpoint be torn, and this process with it."""
    save, paths = torch.save, []

    def torn(state: object, path: Path) -> None:
        paths.append(path)
        save(state, path)
        if len(paths) == number:
            os.truncate(path, path.stat().st_size // 2)
            die()

    torch.save = torn


def train_killed(name: str, out: Path) -> None:
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            sys.exit(f"expected {name} to be killed, got status {status}")
        return
    training = Squares(5)
    if name == "mln":
        die_while_saving(4)  # the first is of the start
    else:
        training = Squares(5, at=8, then=die)
    train(tiny(name), training, Squares(3), CONFIG, out)
    os._exit(0)


def train_epochs(number: int, out: Path) -> None:
    config = replace(CONFIG, epochs=number)
    fabric = make_fabric(config)
    model = tiny()
    train(model, Squares(5), Squares(3), config, out, fabric=fabric)
    torch.save(model.state_dict(), out / f"rank{fabric.global_rank}.pt")


def train_in_two_processes(number: int, out: Path) -> None:
    """Do what torchrun does, without a new interpreter for each process."""
    options = {"start_method": "fork", "rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": "squares"}
    elastic_launch(LaunchConfig(1, 1, 2, max_restarts=0, **options), train_epochs)(number, out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    for each in ("mll", "rstn", "mln"):
        train_killed(each, folder / each)
    train_in_two_processes(3, folder / "two")
