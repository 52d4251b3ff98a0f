"""DSC and distances of surfaces against hand-worked values and a brute-force oracle."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter

from reference.evaluation import (
    average_surface_distance,
    dice_score,
    hausdorff_distance_95,
    summarize,
    surface_dice,
)


def brute_force_distances(prediction, truth, spacing):
    def surface(mask):
        voxels = []
        for index in np.argwhere(mask):
            for axis in range(mask.ndim):
                for step in (-1, 1):
                    neighbor = index.copy()
                    neighbor[axis] += step
                    outside = not 0 <= neighbor[axis] < mask.shape[axis]
                    if mask.shape[axis] > 1 and (outside or not mask[tuple(neighbor)]):
                        voxels.append(index * np.asarray(spacing))
        return np.unique(voxels, axis=0)

    distances = np.linalg.norm(surface(prediction)[:, None] - surface(truth)[None], axis=-1)
    return distances.min(1), distances.min(0)


def blob(shape, seed, threshold=0.1):
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return noise > threshold


def mask(*rows):
    return np.array([[character == "x" for character in row] for row in rows])


def test_dice_by_hand():
    assert dice_score(mask("xx.."), mask(".xxx")) == 2 * 1 / 5
    assert dice_score(mask("xx"), mask("xx")) == 1
    assert dice_score(mask("x."), mask(".x")) == 0


def test_dice_of_empty_masks():
    assert dice_score(mask(".."), mask("..")) == 1
    assert dice_score(mask(".."), mask("x.")) == 0
    assert dice_score(mask("x."), mask("..")) == 0


def test_hausdorff_by_hand():
    # The only surface voxels are the masks themselves: every distance is 3 columns of 2 mm.
    assert hausdorff_distance_95(mask("x...", "x..."), mask("...x", "...x"), (1.0, 2.0)) == 6.0
    # 10 of 11 predicted voxels lie on the truth, one is 10 rows away: P95 is halfway between the last two ranks.
    truth = np.zeros((11, 21), dtype=bool)
    truth[0, ::2] = True
    prediction = truth.copy()
    prediction[0, 20] = False
    prediction[10, 20] = True
    assert hausdorff_distance_95(prediction, truth, (1.0, 1.0)) == pytest.approx(5.0)


def test_hausdorff_takes_the_larger_directed_percentile_not_the_percentile_of_both():
    truth = np.zeros((1, 30), dtype=bool)
    truth[0, :20] = True
    prediction = np.zeros_like(truth)
    prediction[0, 0] = True
    # From the prediction every distance is 0; from the truth's 20 voxels they are 0 … 19: P95 = 18.05.
    assert hausdorff_distance_95(prediction, truth, (1.0, 1.0)) == pytest.approx(18.05)
    assert hausdorff_distance_95(truth, prediction, (1.0, 1.0)) == pytest.approx(18.05)


def test_hausdorff_of_filled_squares_uses_their_surface_alone():
    truth = np.zeros((12, 12), dtype=bool)
    truth[1:11, 1:11] = True
    hollow = truth.copy()
    hollow[4:8, 4:8] = False
    # The hole's rim adds a second surface 2 voxels inside the outer one.
    assert hausdorff_distance_95(hollow, truth, (1.0, 1.0)) == 2.0


def test_average_surface_distance_and_surface_dice_by_hand():
    # Surfaces: 4 voxels and 2 voxels; from the former 0, 0, 2, 2 mm to the latter, back 0, 0.
    truth, prediction = mask("xx..", "xx.."), mask("x...", "x...")
    assert average_surface_distance(prediction, truth, (1.0, 2.0)) == pytest.approx(4 / 6)
    assert surface_dice(prediction, truth, (1.0, 2.0), tolerance=1.9) == pytest.approx(4 / 6)
    assert surface_dice(prediction, truth, (1.0, 2.0), tolerance=2.0) == 1


def test_averages_of_empty_masks():
    empty, some = np.zeros((3, 4, 5), dtype=bool), np.ones((3, 4, 5), dtype=bool)
    for prediction, truth, distance, share in ((empty, empty, 0, 1), (empty, some, math.inf, 0), (some, some, 0, 1)):
        assert average_surface_distance(prediction, truth, (1, 1, 1)) == distance
        assert surface_dice(prediction, truth, (1, 1, 1)) == share


def test_hausdorff_of_empty_masks():
    empty, some = np.zeros((3, 4, 5), dtype=bool), np.ones((3, 4, 5), dtype=bool)
    assert hausdorff_distance_95(empty, empty, (1, 1, 1)) == 0
    assert hausdorff_distance_95(empty, some, (1, 1, 1)) == math.inf
    assert hausdorff_distance_95(some, empty, (1, 1, 1)) == math.inf


@pytest.mark.parametrize("shape", [(37,), (23, 31), (1, 23, 31), (7, 11, 13), (7, 1, 13)])
@pytest.mark.parametrize("seed", range(4))
def test_surfaces_equal_brute_force(shape, seed):
    prediction, truth = blob(shape, seed), blob(shape, seed + 100, threshold=0.0)
    spacing = (5.0, 0.7, 1.3)[: len(shape)]
    assert prediction.any()
    assert truth.any()
    directed = brute_force_distances(prediction, truth, spacing)
    expected = max(np.percentile(distances, 95) for distances in directed)
    assert hausdorff_distance_95(prediction, truth, spacing) == pytest.approx(expected, rel=1e-6)
    flipped, transposed = (np.flip(prediction), np.flip(truth)), (prediction.T, truth.T)
    assert hausdorff_distance_95(*flipped, spacing) == pytest.approx(expected, rel=1e-6)
    assert hausdorff_distance_95(*transposed, spacing[::-1]) == pytest.approx(expected, rel=1e-6)
    both = np.concatenate(directed)
    assert average_surface_distance(prediction, truth, spacing) == pytest.approx(both.mean(), rel=1e-6)
    # Away from the distances that are a tolerance exactly, which single precision may round to either side.
    for tolerance in (0.1, 1.0, 3.01):
        assert surface_dice(prediction, truth, spacing, tolerance) == pytest.approx((both <= tolerance).mean())


@given(
    masks=hnp.array_shapes(min_dims=1, max_dims=3, max_side=6).flatmap(
        lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
    ),
    factor=st.floats(0.1, 10),
)
def test_laws(masks, factor):
    prediction, truth = masks
    spacing = (1.0, 2.0, 3.0)[: truth.ndim]
    distance = hausdorff_distance_95(prediction, truth, spacing)
    assert distance == hausdorff_distance_95(truth, prediction, spacing)
    assert hausdorff_distance_95(prediction, truth, [factor * s for s in spacing]) == pytest.approx(
        factor * distance, rel=1e-5
    )
    assert hausdorff_distance_95(truth, truth, spacing) == 0
    assert dice_score(prediction, truth) == dice_score(truth, prediction)
    assert 0 <= dice_score(prediction, truth) <= 1
    assert dice_score(truth, truth) == 1


def test_rejects():
    a, b = np.zeros((3, 4), dtype=bool), np.zeros((3, 5), dtype=bool)
    with pytest.raises(ValueError, match=r"`prediction` and `truth` to have one shape, got \(3, 4\) and \(3, 5\)"):
        dice_score(a, b)
    with pytest.raises(ValueError, match=r"`prediction` and `truth` to be bool, got uint8 and bool"):
        dice_score(a.astype(np.uint8), a)
    with pytest.raises(ValueError, match=r"expected `spacing` to have 2 positive values, got \(1.0,\)"):
        hausdorff_distance_95(a, a, (1.0,))
    with pytest.raises(ValueError, match=r"expected `spacing` to have 2 positive values, got \(1.0, -1.0\)"):
        hausdorff_distance_95(a, a, (1.0, -1.0))


def test_summary_counts_undefined_values_apart():
    summary = summarize([1.0, 2.0, math.inf, 6.0, math.nan])
    assert (summary.mean, summary.min, summary.max, summary.count, summary.undefined) == (3, 1, 6, 3, 2)
    assert summary.sd == pytest.approx(math.sqrt((4 + 1 + 9) / 3))


def test_summary_of_nothing():
    for values in ([], [math.inf]):
        summary = summarize(values)
        assert math.isnan(summary.mean)
        assert math.isnan(summary.sd)
        assert (summary.count, summary.undefined) == (0, len(values))


def test_masks_that_are_read_only_are_measured():
    truth = np.ones((3, 4), dtype=bool)
    truth.flags.writeable = False
    prediction = truth.copy()
    prediction[0, 0] = False
    assert hausdorff_distance_95(prediction, truth, (1.0, 1.0)) == hausdorff_distance_95(
        prediction, truth.copy(), (1.0, 1.0)
    )
