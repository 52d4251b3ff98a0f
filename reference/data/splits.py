"""Training, validation and test cases that share no patient."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import numpy as np

from multilevel_loss._checks import check_choice
from reference.data.case import Case

Protocol = Literal["nih", "isicdm", "spleen"]

NIH_LAST = (20, 40, 61, 82)
"""The last case number of each fold of NIH Pancreas-CT."""

ISICDM_FOLDS = 6
SPLEEN_CASES, SPLEEN_TEST = 41, 20


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


def paper_folds(cases: Sequence[Case], protocol: Protocol, *, validation: float = 0.1, seed: int = 0) -> list[Split]:
    """Return the splits of the paper's experiments, one for each fold; the validation cases are of training patients.

    Args:
        cases: all cases of the data set.
        protocol: "nih": 4 fixed folds by the number in a patient's name, 1–20, 21–40, 41–61 and 62–82; cases that are
            absent, such as the withdrawn 25 and 70, move no other. "isicdm": 6 contiguous folds of the thin or of the
            thick cases. "spleen": one split at random into 21 cases to learn from and 20 to test.
        validation: share of the training patients, in [0, 1); a share above 0 gets at least one patient.
        seed: of the random choices: who validates, and the spleens to test.

    Raises:
        ValueError: cases that are not of the data set, a fold without cases, a share out of range, or too few patients.

    Source:
        §4.3 of Liu et al.; for the order of NIH cases, their predecessor RSTN (Yu et al., CVPR 2018).
    """
    check_choice("protocol", protocol, get_args(Protocol))
    if protocol == "isicdm":
        return folds(cases, ISICDM_FOLDS, validation=validation, seed=seed)
    patients = sorted({case.patient for case in cases})
    if protocol == "spleen":
        if len(patients) != SPLEEN_CASES:
            raise ValueError(f"expected the {SPLEEN_CASES} cases of the MSD spleen, got {len(patients)}")
        shuffled = [patients[k] for k in np.random.default_rng(seed).permutation(len(patients))]
        return [_leave_out(cases, shuffled[:SPLEEN_TEST], validation, seed)]
    numbers = {patient: _nih_number(patient) for patient in patients}
    tests = [
        [patient for patient in patients if first < numbers[patient] <= last]
        for first, last in pairwise((0, *NIH_LAST))
    ]
    return [_leave_out(cases, test, validation, seed) for test in tests]


def folds(cases: Sequence[Case], count: int, *, validation: float = 0.1, seed: int = 0) -> list[Split]:
    """Return `count` splits, each of which tests its share of the patients, contiguous in the order of their names.

    Where the patients do not divide evenly, the last folds have one more. Validation as in `paper_folds`.

    Raises:
        ValueError: fewer than two folds or more than patients, a share out of range, or no patient left for training.
    """
    patients = sorted({case.patient for case in cases})
    if not 2 <= count <= len(patients):
        raise ValueError(f"expected `count` to be 2 to {len(patients)}, the number of patients, got {count}")
    size, larger = divmod(len(patients), count)
    ends = [k * size + max(0, k - (count - larger)) for k in range(count + 1)]
    return [_leave_out(cases, patients[first:last], validation, seed) for first, last in pairwise(ends)]


def _leave_out(cases: Sequence[Case], test: Sequence[str], validation: float, seed: int) -> Split:
    """Return the split that tests the patients in `test`."""
    tested = [case for case in cases if case.patient in test]
    if not tested:
        raise ValueError("expected cases in every fold, found one without any")
    rest = split_by_patient(
        [case for case in cases if case.patient not in test], validation=validation, test=0, seed=seed
    )
    return rest._replace(test=tested)


def _nih_number(patient: str) -> int:
    match = re.fullmatch(r"PANCREAS_(\d{4})", patient)
    if match is None or not 1 <= int(match[1]) <= NIH_LAST[-1]:
        raise ValueError(f"expected patients PANCREAS_0001 to PANCREAS_{NIH_LAST[-1]:04d}, got {patient!r}")
    return int(match[1])
