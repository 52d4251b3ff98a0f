"""Weights that change with the epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from multilevel_loss._checks import check_number


class Schedule(Protocol):
    """A weight as a function of the epoch."""

    def __call__(self, epoch: int) -> float:
        """Return the weight in an epoch, counted from 0."""


@dataclass(frozen=True)
class LinearRamp:
    """A weight that moves from `start` towards `stop` by `step` each epoch, and stays there.

    Example:
        >>> ramp = LinearRamp(0, 1, step=0.2)
        >>> [round(ramp(epoch), 1) for epoch in range(7)]
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0]

    Source:
        α in §4.1.1 of Liu et al.
    """

    start: float
    stop: float
    step: float

    def __post_init__(self) -> None:
        """Check the step."""
        check_number("step", self.step, above=0)

    def __call__(self, epoch: int) -> float:
        """Return the weight in an epoch, counted from 0."""
        moved = self.step * epoch
        rising = self.stop >= self.start
        return float(min(self.start + moved, self.stop) if rising else max(self.start - moved, self.stop))


@dataclass(frozen=True)
class StepAt:
    """A weight that is `before` until `epoch`, and `after` from then on.

    Example:
        >>> [StepAt(12)(epoch) for epoch in (0, 11, 12, 19)]
        [0.0, 0.0, 1.0, 1.0]

    Source:
        β in §4.1.1 of Liu et al.
    """

    epoch: int
    before: float = 0.0
    after: float = 1.0

    def __call__(self, epoch: int) -> float:
        """Return the weight in an epoch, counted from 0."""
        return float(self.after if epoch >= self.epoch else self.before)


PAPER_MLL: dict[str, Schedule] = {"alpha": LinearRamp(0, 1, step=0.2), "beta": StepAt(12)}
"""The schedules of §4.1.1 of Liu et al. for :class:`multilevel_loss.MLLoss`: ``MLLoss(**PAPER_MLL)``."""

PAPER_MLN: dict[str, Schedule] = {"beta": StepAt(12), "gamma": StepAt(12)}
"""The schedules of §4.1.1 of Liu et al. for :class:`multilevel_loss.MLNLoss`: ``MLNLoss(**PAPER_MLN)``."""
