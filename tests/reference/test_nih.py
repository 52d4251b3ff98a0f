"""NIH Pancreas-CT from made series: labels are found to lie flipped, whichever way, and it is said when they do not."""

import itertools
from collections import defaultdict

import numpy as np
import pytest
from scans import write_series, write_volume
from scipy import ndimage

from reference.data import make_phantom, read_image_folder
from reference.data.flips import FLIPS, find_flip
from reference.data.nih import find_nih_pairs, read_nih_pair

WINDOW = (-100.0, 240.0)


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(3, size=64, depth=10)


def write_patient(folder, number, image, mask, uid="1.2.3.4"):
    """As TCIA's downloader lays out a patient, the labels in a folder of their own."""
    series = folder / "Pancreas-CT" / f"PANCREAS_{number:04d}" / "11-24-2015-PANCREAS-1" / "Pancreas-2"
    write_series(series, image, (6.0, 5.0, 5.0), uid=f"{uid}.{number}", origin=(-160.0, -160.0, -30.0))
    label = folder / "TCIA_pancreas_labels-02-05-2017" / f"label{number:04d}.nii.gz"
    write_volume(label, mask.astype(np.uint8), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("flip", FLIPS)
def test_labels_are_put_on_the_organ(tmp_path, phantom, flip):
    write_patient(tmp_path, 1, phantom.image, np.flip(phantom.label, flip))
    (pair,) = find_nih_pairs(tmp_path)
    case = read_nih_pair(pair)
    assert (case.name, case.patient, case.window) == ("PANCREAS_0001", "PANCREAS_0001", (-100, 240))
    np.testing.assert_array_equal(case.image, phantom.image)
    np.testing.assert_array_equal(case.label, phantom.label)
    assert case.spacing == pytest.approx((6.0, 5.0, 5.0))
    assert case.geometry.origin == (-160.0, -160.0, -30.0)


def test_a_series_stored_from_back_to_front(tmp_path, phantom):
    """Prone patients: the axes of the file run the other way, and are turned together with the labels."""
    turned = np.flip(phantom.image, (1, 2))
    folder = tmp_path / "PANCREAS_0009"
    write_series(folder, turned, (6.0, 5.0, 5.0), direction=np.diag([-1.0, -1.0, 1.0]))
    write_volume(tmp_path / "label0009.nii.gz", np.flip(phantom.label, 2).astype(np.uint8))
    case = read_nih_pair(find_nih_pairs(tmp_path)[0])
    np.testing.assert_array_equal(case.image, phantom.image)
    np.testing.assert_array_equal(case.label, phantom.label)


def test_other_labels_and_percentiles(tmp_path, phantom):
    write_patient(tmp_path, 1, phantom.image, 2 * phantom.label)
    (pair,) = find_nih_pairs(tmp_path)
    case = read_nih_pair(pair, window=None, labels=(2,))
    np.testing.assert_array_equal(case.label, phantom.label)
    assert case.window == tuple(np.percentile(phantom.image, (0.5, 99.5)))
    with pytest.raises(
        ValueError, match=r"label0001.nii.gz on .*PANCREAS_0001: expected labels of the organ, found none"
    ):
        read_nih_pair(pair)


class TestFlips:
    def test_a_dark_organ_in_a_bright_surrounding(self, phantom):
        image = -phantom.image.astype(np.int32)
        for flip in FLIPS:
            assert find_flip(image, np.flip(phantom.label, flip), (-240, 100)) == flip

    def test_a_symmetric_mask_needs_no_choice(self):
        rng = np.random.default_rng(0)
        mask = np.zeros((9, 21, 21), dtype=bool)
        mask[3:6, 8:13, 8:13] = True
        image = np.where(mask, 100.0, -80.0) + rng.normal(0, 20, mask.shape)
        np.testing.assert_array_equal(np.flip(mask, find_flip(image, mask, WINDOW)), mask)

    def test_a_mask_symmetric_along_one_axis(self):
        rng = np.random.default_rng(0)
        mask = np.zeros((9, 21, 21), dtype=bool)
        mask[3:6, 8:13, 2:7] = True
        image = np.where(mask, 100.0, -80.0) + rng.normal(0, 20, mask.shape)
        np.testing.assert_array_equal(np.flip(mask[..., ::-1], find_flip(image, mask[..., ::-1], WINDOW)), mask)

    def test_nothing_to_see(self, phantom):
        noise = np.random.default_rng(0).normal(50, 30, phantom.image.shape)
        with pytest.raises(ValueError, match=r"under one flip of their axes, but the correlations are .* 0\.0"):
            find_flip(noise, phantom.label, WINDOW)
        with pytest.raises(
            ValueError, match=r"the correlations are none 0\.00, z 0\.00, y 0\.00, x 0\.00, zy 0\.00, zx"
        ):
            find_flip(np.full(phantom.image.shape, 7), phantom.label, WINDOW)

    def test_two_flips_that_fit_alike(self, phantom):
        mirrored = np.concatenate([phantom.image[..., :32], phantom.image[..., :32][..., ::-1]], axis=2)
        mask = phantom.label.copy()
        mask[..., 32:] = False
        with pytest.raises(
            ValueError, match=r"under one flip of their axes, but the correlations are (none|x) 0\.\d\d, "
        ):
            find_flip(mirrored, mask, WINDOW)

    def test_labels_of_another_patient(self, phantom):
        other = make_phantom(4, size=64, depth=10)
        with pytest.raises(ValueError, match="to meet the organ under one flip"):
            find_flip(phantom.image, ndimage.shift(other.label.astype(np.uint8), (0, 12, 0), order=0) > 0, WINDOW)

    @pytest.mark.data
    def test_pancreases(self, data):
        """A few slices of each patient, flipped in plane: far less to go by than a volume."""
        patients = defaultdict(list)
        for case in read_image_folder(data / "nih_pancreas_2d", size=256):
            patients[case.patient].append(case)
        found = []
        for cases, flip in zip(patients.values(), itertools.cycle([(), (1,), (2,), (1, 2)])):
            image = np.concatenate([np.repeat(case.image, 7, axis=0) for case in cases])
            mask = np.concatenate([np.repeat(case.label, 7, axis=0) for case in cases])
            try:
                # The slices of one patient are no volume, so their order says nothing.
                found.append(tuple(axis for axis in find_flip(image, np.flip(mask, flip), (0, 240)) if axis) == flip)
            except ValueError:
                found.append(None)
        assert len(found) == 46
        assert False not in found
        assert found.count(True) >= 42


class TestPairs:
    def touch(self, folder, series=(), labels=()):
        for number in series:
            (folder / "ct" / f"PANCREAS_{number:04d}").mkdir(parents=True)
        (folder / "labels").mkdir(parents=True, exist_ok=True)
        for number in labels:
            (folder / "labels" / f"label{number:04d}.nii.gz").touch()

    def numbers(self, folder):
        return [int(pair.name[-4:]) for pair in find_nih_pairs(folder)]

    def test_all_82(self, tmp_path):
        self.touch(tmp_path, range(82, 0, -1), range(1, 83))
        assert self.numbers(tmp_path) == list(range(1, 83))

    @pytest.mark.parametrize("labels", [(25, 70), (25,), ()])
    @pytest.mark.parametrize("series", [(25, 70), (70,), ()])
    def test_withdrawn_cases_may_be_absent(self, tmp_path, series, labels):
        self.touch(tmp_path, [1, 2, *series], [1, 2, *labels])
        assert self.numbers(tmp_path) == [1, 2, *sorted(set(series) & set(labels))]

    def test_others_may_not(self, tmp_path):
        self.touch(tmp_path, [1, 2, 3, 4], [1, 2])
        with pytest.raises(ValueError, match=r"expected labels for .*PANCREAS_0003 in .*, found none \(and 1 more\)$"):
            find_nih_pairs(tmp_path)
        self.touch(tmp_path, [], [3, 4, 5])
        with pytest.raises(ValueError, match=r"expected a series for .*label0005.nii.gz in .*, found none$"):
            find_nih_pairs(tmp_path)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(ValueError, match=r"expected folders PANCREAS_0001 … and files label0001.nii.gz … in"):
            find_nih_pairs(tmp_path)

    def test_two_of_one_number(self, tmp_path):
        self.touch(tmp_path, [1], [1])
        self.touch(tmp_path / "again", [], [1])
        with pytest.raises(ValueError, match=r"expected one label0001.nii.gz in .*, got .*again/labels/label0001"):
            find_nih_pairs(tmp_path)

    def test_shapes_that_differ(self, tmp_path, phantom):
        write_patient(tmp_path, 1, phantom.image, phantom.label[:, :-1])
        with pytest.raises(ValueError, match=r"the shape of its series, \(10, 64, 64\), got \(10, 63, 64\)"):
            read_nih_pair(find_nih_pairs(tmp_path)[0])
