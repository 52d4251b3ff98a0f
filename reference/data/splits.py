"""Training, validation and test cases that share no patient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from reference.data.case import Case


class Split(NamedTuple):
    """Cases to learn from, to choose a checkpoint by, and to report."""

    train: list[Case]
    validation: list[Case]
    test: list[Case]


def split_by_patient(cases: Sequence[Case], *, validation: float = 0.1, test: float = 0.2, seed: int = 0) -> Split:
    """Deal the patients at random to training, validation and test, with all cases of a patient on one side.

    Args:
        cases: of any number of patients; the order does not matter.
        validation: share of the patients, in [0, 1); a share above 0 gets at least one patient.
        test: likewise.
        seed: the same patients, shares and seed give the same split.

    Raises:
        ValueError: a share out of range, or no patient left for training.
    """
    for name, share in (("validation", validation), ("test", test)):
        if not 0 <= share < 1:
            raise ValueError(f"expected `{name}` to be a share of the patients, at least 0 and below 1, got {share!r}")
    patients = sorted({case.patient for case in cases})
    shuffled = [patients[k] for k in np.random.default_rng(seed).permutation(len(patients))]
    ends = np.cumsum([max(1, round(share * len(patients))) if share else 0 for share in (test, validation)])
    if len(patients) <= ends[1]:
        raise ValueError(
            f"expected patients left for training, but of {len(patients)} the test takes {ends[0]} "
            f"and the validation {ends[1] - ends[0]}: the training split is empty"
        )
    sides = (shuffled[ends[1] :], shuffled[ends[0] : ends[1]], shuffled[: ends[0]])
    return Split(*([case for case in cases if case.patient in side] for side in map(set, sides)))
