"""Splits and folds: no patient on two sides, no case lost, and the paper's folds as it states them."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.data import Case, folds, paper_folds, split_by_patient

VOXEL = np.zeros((1, 1, 1), dtype=np.int16)


def make_case(name, patient=None):
    return Case(name, patient or name, VOXEL, VOXEL.astype(bool), (1.0, 1.0, 1.0))


def nih_cases(absent=(), slices=1):
    return [
        make_case(f"PANCREAS_{number:04d}-{k}", f"PANCREAS_{number:04d}")
        for number in range(1, 83)
        if number not in absent
        for k in range(slices)
    ]


def numbers(side):
    return sorted({int(case.patient[-4:]) for case in side})


def assert_no_leak(split, cases):
    sides = [{case.patient for case in side} for side in split]
    assert sum(map(len, sides)) == len(set().union(*sides)) == len({case.patient for case in cases})
    assert sorted(case.name for side in split for case in side) == sorted(case.name for case in cases)


class TestByPatient:
    @given(
        slices=st.lists(st.integers(1, 4), min_size=5, max_size=60),
        validation=st.floats(0, 0.3),
        test=st.floats(0, 0.3),
        seed=st.integers(0, 2**32 - 1),
    )
    def test_no_patient_on_two_sides_and_no_case_lost(self, slices, validation, test, seed):
        cases = [
            make_case(f"{patient}-{k}", str(patient)) for patient, count in enumerate(slices) for k in range(count)
        ]
        split = split_by_patient(cases, validation=validation, test=test, seed=seed)
        assert_no_leak(split, cases)
        assert split == split_by_patient(cases, validation=validation, test=test, seed=seed)
        assert split.train
        assert bool(split.validation) == (validation > 0)
        assert bool(split.test) == (test > 0)

    def test_does_not_depend_on_the_order_of_cases(self):
        cases = [make_case(str(k)) for k in range(11)]
        names = [{case.name for case in side} for side in split_by_patient(cases, seed=3)]
        assert names == [{case.name for case in side} for side in split_by_patient(cases[::-1], seed=3)]
        assert names != [{case.name for case in side} for side in split_by_patient(cases, seed=4)]
        assert [len(side) for side in names] == [8, 1, 2]

    def test_empty_training_split(self):
        cases = [make_case(name) for name in "ab"]
        with pytest.raises(
            ValueError, match=r"of 2 the test takes 1 and the validation 1: the training split is empty$"
        ):
            split_by_patient(cases)
        with pytest.raises(
            ValueError, match=r"of 0 the test takes 1 and the validation 1: the training split is empty$"
        ):
            split_by_patient([])

    def test_share_out_of_range(self):
        with pytest.raises(
            ValueError, match="expected `test` to be a share of the patients, at least 0 and below 1, got"
        ):
            split_by_patient([make_case("a")], test=1.0)


class TestFolds:
    @given(
        slices=st.lists(st.integers(1, 3), min_size=4, max_size=40),
        count=st.integers(2, 8),
        validation=st.floats(0, 0.4),
        seed=st.integers(0, 2**32 - 1),
        order=st.randoms(use_true_random=False),
    )
    def test_every_patient_is_tested_once_and_never_seen_before(self, slices, count, validation, seed, order):
        cases = [
            make_case(f"{patient:02d}-{k}", f"{patient:02d}") for patient, n in enumerate(slices) for k in range(n)
        ]
        order.shuffle(cases)
        count = min(count, len(slices))
        splits = folds(cases, count, validation=validation, seed=seed)
        tested = [sorted({case.patient for case in split.test}) for split in splits]
        # Contiguous, in order, once.
        assert list(itertools.chain.from_iterable(tested)) == sorted({case.patient for case in cases})
        sizes = [len(test) for test in tested]
        assert max(sizes) - min(sizes) <= 1
        assert sizes == sorted(sizes)
        for split in splits:
            assert_no_leak(split, cases)
            assert split.train
            assert bool(split.validation) == (validation > 0)

    def test_nih_sizes_follow_from_the_rule(self):
        splits = folds(nih_cases(), 4)
        assert [numbers(split.test) for split in splits] == [
            numbers(split.test) for split in paper_folds(nih_cases(), "nih")
        ]

    @pytest.mark.parametrize("count", [-1, 0, 1, 4])
    def test_rejects(self, count):
        with pytest.raises(ValueError, match=f"expected `count` to be 2 to 3, the number of patients, got {count}"):
            folds([make_case(name) for name in "abc"], count)

    def test_nobody_left_to_train(self):
        with pytest.raises(ValueError, match="the training split is empty"):
            folds([make_case(name) for name in "ab"], 2)


class TestPaperFolds:
    def test_nih(self):
        splits = paper_folds(nih_cases(slices=2), "nih")
        expected = [range(1, 21), range(21, 41), range(41, 62), range(62, 83)]
        assert [numbers(split.test) for split in splits] == [list(fold) for fold in expected]
        assert [len(split.test) for split in splits] == [40, 40, 42, 42]
        for split in splits:
            assert_no_leak(split, nih_cases(slices=2))
            assert len(numbers(split.validation)) == 6

    def test_nih_without_the_withdrawn_cases(self):
        splits = paper_folds(nih_cases(absent=(25, 70)), "nih")
        assert [len(split.test) for split in splits] == [20, 19, 21, 20]
        assert [numbers(split.test)[:: len(split.test) - 1] for split in splits] == [
            [1, 20],
            [21, 40],
            [41, 61],
            [62, 82],
        ]

    def test_validation_depends_on_the_seed_alone(self):
        first, again, other = (paper_folds(nih_cases(), "nih", seed=seed) for seed in (1, 1, 2))
        validations = [[numbers(split.validation) for split in splits] for splits in (first, again, other)]
        assert validations[0] == validations[1] != validations[2]

    def test_isicdm(self):
        cases = [make_case(f"{number:02d}") for number in range(36)]
        splits = paper_folds(cases, "isicdm")
        assert [[int(case.name) for case in split.test] for split in splits] == np.arange(36).reshape(6, 6).tolist()

    def test_thin_and_thick_of_one_patient_stay_together(self):
        cases = [
            make_case(f"{part}-{number:02d}", f"{number:02d}") for part in ("thin", "thick") for number in range(36)
        ]
        for split in paper_folds(cases, "isicdm"):
            assert_no_leak(split, cases)
            assert len(split.test) == 12

    @pytest.mark.parametrize("seed", range(5))
    def test_spleen(self, seed):
        cases = [make_case(f"spleen_{number}") for number in range(41)]
        (split,) = paper_folds(cases, "spleen", seed=seed)
        assert (len(split.train) + len(split.validation), len(split.test)) == (21, 20)
        assert_no_leak(split, cases)
        assert split.test != sorted(cases, key=lambda case: case.name)[:20]

    def test_rejects(self):
        with pytest.raises(ValueError, match="expected `protocol` to be one of 'nih', 'isicdm', 'spleen', got 'msd'"):
            paper_folds(nih_cases(), "msd")
        for patient in ("spleen_1", "PANCREAS_0083", "PANCREAS_0000", "PANCREAS_1"):
            with pytest.raises(ValueError, match=f"PANCREAS_0001 to PANCREAS_0082, got '{patient}'"):
                paper_folds([*nih_cases(), make_case(patient)], "nih")
        with pytest.raises(ValueError, match="expected cases in every fold, found one without any"):
            paper_folds(nih_cases()[:60], "nih")
        with pytest.raises(ValueError, match="expected the 41 cases of the MSD spleen, got 82"):
            paper_folds(nih_cases(), "spleen")
