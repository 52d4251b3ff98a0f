"""Tiny trainings on made squares, for tests, and as a program in other processes.

`squares.py epochs N OUT` trains N epochs, under torchrun say, and saves each process's weights; `squares.py killed OUT`
has OUT/mll trained by a process that is killed in the second epoch, and OUT/mln by one that is killed when half of the
checkpoint of the third is written.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
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


def tiny(name: str = "mll", seed: int = 0, width: int = 2) -> CoarseToFine:
    return build_model(name, width=width, num_points=32, generator=torch.Generator().manual_seed(seed))


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


def train_epochs(number: int, out: Path) -> None:
    config = replace(CONFIG, epochs=number)
    fabric = make_fabric(config)
    model = tiny()
    train(model, Squares(5), Squares(3), config, out, fabric=fabric)
    torch.save(model.state_dict(), out / f"rank{fabric.global_rank}.pt")


def train_killed(out: Path) -> None:
    for name in ("mll", "mln"):
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
                sys.exit(f"expected {name} to be killed, got status {status}")
            continue
        if name == "mll":
            train(tiny(name), Squares(5, at=8, then=die), Squares(3), CONFIG, out / name)
        else:
            die_while_saving(4)  # the first is of the start
            train(tiny(name), Squares(5), Squares(3), CONFIG, out / name)
        os._exit(0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "epochs":
        train_epochs(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        train_killed(Path(sys.argv[2]))
