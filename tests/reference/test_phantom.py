"""The phantom is what its docstring says: small, low-contrast, like its neighbors, and the same for the same seed."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from reference.data import make_phantom


@pytest.fixture(scope="module")
def phantoms():
    return [make_phantom(seed, size=96, depth=6) for seed in range(6)]


def test_shape_range_and_spacing(phantoms):
    case = phantoms[0]
    assert case.image.shape == (6, 96, 96)
    assert case.image.dtype == np.int16
    assert case.window == (-100, 240)
    assert case.spacing == pytest.approx((6.0, 320 / 96, 320 / 96))
    assert (case.name, case.patient) == ("phantom-0000", "phantom-0000")


def test_the_seed_alone_decides(phantoms):
    again = make_phantom(1, size=96, depth=6)
    np.testing.assert_array_equal(again.image, phantoms[1].image)
    np.testing.assert_array_equal(again.label, phantoms[1].label)
    assert not np.array_equal(phantoms[0].label, phantoms[1].label)


def test_the_organ_is_small_and_in_every_volume(phantoms):
    shares = [case.label.mean() for case in phantoms]
    assert 0.003 < min(shares) <= max(shares) < 0.015


def test_intensity_alone_does_not_find_the_organ(phantoms):
    for case in phantoms:
        low, high = np.percentile(case.image[case.label], [10, 90])
        alike = (case.image >= low) & (case.image <= high)
        assert (alike & ~case.label).sum() > 10 * (alike & case.label).sum()


def test_the_organ_has_a_boundary_that_can_be_seen(phantoms):
    contrasts = []
    for case in phantoms:
        ring = binary_dilation(case.label, np.ones((1, 5, 5))) & ~binary_dilation(case.label, np.ones((1, 3, 3)))
        contrasts.append(case.image[case.label].mean() - case.image[ring].mean())
    assert 10 < np.mean(contrasts) < 100  # HU


def test_one_slice():
    assert make_phantom(0, size=64, depth=1).image.shape == (1, 64, 64)
