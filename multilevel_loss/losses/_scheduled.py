"""What losses of several terms share: the weights of the terms, which may follow the epoch."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from functools import reduce
from operator import add
from typing import Any

from torch import Tensor, nn

from multilevel_loss._checks import check_number
from multilevel_loss._module import Loss
from multilevel_loss._reduce import scaled
from multilevel_loss.schedules import Schedule

OMEGA = (1 / 3, 2 / 3)
"""The weights of the coarse and the fine model."""


class ScheduledLoss(nn.Module):
    """A loss of named terms, each weighted by a number or a schedule, a function of the epoch."""

    def __init__(self, weights: Mapping[str, float | Schedule]) -> None:
        super().__init__()
        self._schedules = dict(weights)
        self._epoch: int | None
        self._weights: dict[str, float]
        self._is_stuck: bool
        self._restore(None)

    @property
    def epoch(self) -> int:
        """The current epoch, counted from 0."""
        return self._epoch or 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0, that the schedules are evaluated at."""
        check_number("epoch", epoch, minimum=0)
        self._restore(epoch)

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each term in the current epoch."""
        return dict(self._weights)

    def weights_in_use(self) -> dict[str, float]:
        """Return `weights`, and warn, once, when they follow an epoch that was never set."""
        if self._is_stuck:
            self._is_stuck = False
            _warn_of_schedule(type(self).__name__)
        return self.weights

    def get_extra_state(self) -> dict[str, int | None]:
        """Return the epoch, for ``state_dict()``."""
        return {"epoch": self._epoch}

    def set_extra_state(self, state: Mapping[str, int | None]) -> None:
        """Restore the epoch from a ``state_dict()``."""
        self._restore(state["epoch"])

    def _restore(self, epoch: int | None) -> None:
        self._epoch = epoch
        # Kept, not computed in `forward`: code compiled there would be compiled anew for every epoch it reads, and is
        # not for every number.
        self._weights = {name: float(w(epoch or 0) if callable(w) else w) for name, w in self._schedules.items()}
        self._is_stuck = epoch is None and any(callable(weight) for weight in self._schedules.values())


def _warn_of_schedule(name: str) -> None:
    warnings.warn(
        f"{name} has a schedule but was never told the epoch: call `set_epoch(epoch)` at the start of each epoch, or "
        "its weights stay those of epoch 0",
        stacklevel=6,
    )


# Told while `forward` is traced too, which cannot hold a warning. This is all that
# `torch.compiler.assume_constant_result` sets, but that imports the compiler, and triton with it.
_warn_of_schedule._dynamo_marked_constant = True  # type: ignore[attr-defined]


def check_weight(name: str, weight: float | Schedule) -> float | Schedule:
    """Return `weight`, checked to be a schedule or a finite number."""
    if not callable(weight):
        check_number(name, weight)
    return weight


def check_term(name: str, term: object, owner: str, shared: Iterable[str]) -> Loss[...]:
    """Return `term`, checked to be a loss module of this library without an option that all terms of `owner` share."""
    if not isinstance(term, Loss):
        raise TypeError(f"expected `{name}` to be a loss module of multilevel_loss, got {type(term).__name__}")
    if owned := set(shared).intersection(term.options):
        option = min(owned)
        raise ValueError(f"expected `{option}`, which all terms share, to be given to {owner}, got it in `{name}`")
    return term


def given(**options: Any) -> dict[str, Any]:
    """Return the options that are not None, so that a term need not know those that were not asked for."""
    return {name: value for name, value in options.items() if value is not None}


def weighted_sum(
    components: dict[str, Tensor],
    weights: Mapping[str, float],
    return_components: bool,
    omega: tuple[float, float] = (0.0, 1.0),
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    """Return the sum of the terms by their weights, and the terms where they are asked for.

    With a term "coarse", that is ω₁ times it and ω₂ times the sum of the others.
    """
    if "coarse" in components:
        weights = {name: omega[1] * weight for name, weight in weights.items()} | {"coarse": omega[0]}
    total = reduce(add, (scaled(weights[name], term) for name, term in components.items()))
    return (total, components) if return_components else total
