import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from multilevel_loss._checks import Mode
from multilevel_loss.points import (
    nearest_points,
    sample_points,
    uncertain_grid_points,
    uncertain_points,
    uncertainty,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("grid", [(7, 5), (1, 13), (5, 3, 11), (2, 1, 1)])
def test_sampling_agrees_with_grid_sample(grid: tuple[int, ...]) -> None:
    field = torch.randn(2, 3, *grid, dtype=torch.float64, requires_grad=True)
    coords = torch.rand(2, 40, len(grid), dtype=torch.float64)
    ours = sample_points(field, coords)
    theirs = F.grid_sample(
        field,
        2 * coords.view(2, 40, *[1] * (len(grid) - 1), len(grid)) - 1,
        padding_mode="border",
        align_corners=False,
    ).view(2, 3, 40)
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn_like(ours)
    torch.testing.assert_close(*(torch.autograd.grad(y, field, upstream)[0] for y in (ours, theirs)))


def test_sampling_in_one_dimension_by_hand() -> None:
    # Cell centres at 1/8, 3/8, 5/8, 7/8; halfway between two centres is their mean; constant beyond the outermost.
    field = torch.tensor([[[0.0, 4.0, 8.0, 0.0]]])
    coords = torch.tensor([0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 0.875, 1.0]).view(1, -1, 1)
    assert sample_points(field, coords).flatten().tolist() == [0, 0, 2, 4, 6, 4, 0, 0]
    assert nearest_points(field, coords).flatten().tolist() == [0, 0, 4, 4, 8, 0, 0, 0]


def test_first_coordinate_is_the_last_axis() -> None:
    field = torch.arange(6.0).view(1, 1, 2, 3)
    right_top = torch.tensor([[[1.0, 0.0]]])
    assert sample_points(field, right_top).item() == nearest_points(field, right_top).item() == 2


def test_sampling_gradient_in_float64() -> None:
    field = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    coords = torch.rand(1, 5, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: sample_points(x, coords), field)


def test_same_generator_same_points() -> None:
    logits = torch.randn(2, 1, 9, 11)
    assert uncertain_points(logits, 64, generator=seeded()).equal(uncertain_points(logits, 64, generator=seeded()))
    assert not uncertain_points(logits, 64, generator=seeded()).equal(uncertain_points(logits, 64, generator=seeded(1)))


@settings(deadline=None, max_examples=25)
@given(
    dims=st.integers(1, 3),
    num_points=st.integers(1, 200),
    oversample=st.floats(1, 4),
    importance=st.floats(0, 1),
    channels=st.integers(1, 3),
)
def test_points_have_their_number_and_lie_in_the_image(
    dims: int, num_points: int, oversample: float, importance: float, channels: int
) -> None:
    logits = torch.randn(2, channels, *(3, 5, 2)[:dims])
    points = uncertain_points(
        logits, num_points, oversample_ratio=oversample, importance_sample_ratio=importance, generator=seeded()
    )
    assert points.shape == (2, num_points, dims)
    assert ((points >= 0) & (points <= 1)).all()
    assert points.isfinite().all()


@pytest.mark.parametrize(("mode", "channels"), [("binary", 1), ("multilabel", 3), ("multiclass", 3)])
def test_uncertain_points_lie_where_classes_meet(mode: str, channels: int) -> None:
    # Class 0 wins left of the middle, class 1 right of it; a third class never comes near.
    ramp = torch.linspace(-20, 20, 200).expand(1, 1, 4, 200)
    logits = ramp if channels == 1 else torch.cat([ramp, -ramp, torch.full_like(ramp, -90)], 1)
    points = uncertain_points(logits, 1000, mode=mode, importance_sample_ratio=1.0, generator=seeded())  # type: ignore[arg-type]
    # The third that is kept of uniform candidates fills the third of the image around the middle.
    assert ((points[..., 0] - 0.5).abs() < 0.5 / 3 + 0.03).all()


def test_uncertainty_by_hand() -> None:
    # Two points of three channels: 2 and 0.5 are the two largest of the first, 1 and 1 of the second.
    logits = torch.tensor([[[2.0, -1.0], [0.5, 1.0], [-3.0, 1.0]]])
    assert uncertainty(logits, "multiclass").tolist() == [[-1.5, 0.0]]
    assert uncertainty(logits, "multilabel").tolist() == [[-0.5, -1.0]]  # of the channel that is least decided
    assert uncertainty(logits[:, :1], "binary").tolist() == [[-2.0, -1.0]]


@pytest.mark.parametrize(("channels", "num_points", "oversample", "importance"), [(1, 12, 3, 0.75), (4, 7, 2.5, 0.5)])
def test_points_are_those_of_pointrend(channels: int, num_points: int, oversample: float, importance: float) -> None:
    # PointRend as published, a point after the other, on the candidates that our generator draws.
    logits = torch.randn(2, channels, 6, 9)
    points = uncertain_points(
        logits, num_points, oversample_ratio=oversample, importance_sample_ratio=importance, generator=seeded()
    )
    candidates, kept = int(oversample * num_points), int(importance * num_points)
    drawn = torch.rand(2, candidates + num_points - kept, 2, generator=seeded())
    for sample in range(2):
        doubt = []
        for x, y in drawn[sample, :candidates].tolist():
            column, row = x * 9 - 0.5, y * 6 - 0.5
            left, top = math.floor(column), math.floor(row)
            at = torch.zeros(channels)
            for i, j in itertools.product((top, top + 1), (left, left + 1)):
                share = (1 - abs(row - i)) * (1 - abs(column - j))
                at += share * logits[sample, :, min(max(i, 0), 5), min(max(j, 0), 8)]
            first, *others = at.sort(descending=True).values.tolist()
            doubt.append(-abs(first) if channels == 1 else others[0] - first)
        most = sorted(range(candidates), key=lambda point: -doubt[point])[:kept]
        expected = {tuple(point) for point in drawn[sample, most].tolist()}
        assert {tuple(point) for point in points[sample, :kept].tolist()} == expected
        assert points[sample, kept:].equal(drawn[sample, candidates:])


def test_fresh_points_are_uniform() -> None:
    ramp = torch.linspace(-20, 20, 200).view(1, 1, 200)
    points = uncertain_points(ramp, 8000, importance_sample_ratio=0.75, generator=seeded())
    far = ((points - 0.5).abs() > 0.3).float().mean().item()
    assert far == pytest.approx(0.25 * 0.4, abs=0.02)


def test_ties_give_distinct_candidates() -> None:
    points = uncertain_points(torch.zeros(1, 1, 8, 8), 300, importance_sample_ratio=1.0, generator=seeded())
    assert points[0].unique(dim=0).shape[0] == 300


def test_ignored_voxels_are_never_chosen() -> None:
    mask = torch.rand(2, 1, 6, 7) > 0.7
    points = uncertain_points(torch.zeros(2, 1, 6, 7), 500, mask=mask, generator=seeded())
    assert nearest_points(mask, points).all()
    cells = (points * torch.tensor([7, 6])).long()
    hit = torch.stack([torch.bincount(c[:, 1] * 7 + c[:, 0], minlength=42) > 0 for c in cells])
    assert hit.equal(mask.flatten(1))  # each of the others is


def test_a_sample_without_a_counting_voxel_draws_anywhere() -> None:
    mask = torch.tensor([True, False]).view(2, 1, 1).expand(2, 1, 5)
    points = uncertain_points(torch.zeros(2, 1, 5), 20, mask=mask, generator=seeded())
    assert points.isfinite().all()
    assert points.shape == (2, 20, 1)


def test_points_carry_no_gradient() -> None:
    assert not uncertain_points(torch.zeros(1, 1, 4, requires_grad=True), 4).requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_points": 0}, "expected `num_points` to be at least 1, got 0"),
        ({"oversample_ratio": 0.5}, "expected `oversample_ratio` to be at least 1, got 0.5"),
        ({"importance_sample_ratio": 1.5}, "expected `importance_sample_ratio` to be from 0 to 1, got 1.5"),
    ],
)
def test_bad_options_say_what_is_wrong(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        uncertain_points(torch.zeros(1, 1, 4), **({"num_points": 4} | options))  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_bad_coordinates_say_what_is_wrong() -> None:
    with pytest.raises(
        ValueError, match=r"expected `point_coords` to have shape \(B, P, D\) = \(1, P, 2\), got \(1, 4, 3\)"
    ):
        sample_points(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 3))


def test_masked_cells_take_no_part() -> None:
    field = torch.tensor([[[1.0, torch.nan, 5.0]]], requires_grad=True)
    mask = torch.tensor([[[True, False, True]]])
    coords = torch.tensor([1 / 6, 2 / 6, 0.5, 4 / 6]).view(1, -1, 1)
    sampled = sample_points(field, coords, mask)
    assert sampled.flatten().tolist() == [1, 1, 0, 5]
    (gradient,) = torch.autograd.grad(sampled.sum(), field)
    assert gradient.flatten().tolist() == [2, 0, 1]


def test_grid_points_are_the_most_uncertain_cells() -> None:
    logits = torch.tensor([[3.0, -0.1, 5.0], [0.2, -4.0, 0.3]]).view(1, 1, 2, 3)
    points = uncertain_grid_points(logits, 3)
    torch.testing.assert_close(points, torch.tensor([[[1 / 2, 1 / 4], [1 / 6, 3 / 4], [5 / 6, 3 / 4]]]))
    assert uncertain_grid_points(logits, 100).shape == (1, 6, 2)
    torch.testing.assert_close(nearest_points(logits, points).flatten(), torch.tensor([-0.1, 0.2, 0.3]))


def test_grid_points_leave_ignored_cells_out() -> None:
    logits = torch.tensor([3.0, -0.1, 5.0, 0.2]).view(1, 1, 4)
    mask = torch.tensor([True, False, True, False]).view(1, 1, 4)
    assert uncertain_grid_points(logits, 3, mask=mask).flatten().tolist() == [0.125, 0.625, 0.125]


GRIDS = [(70_001,), (1, 65_537), (257, 263), (1, 1, 66_000), (41, 37, 53)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("mode", "channels"), [("binary", 1), ("multilabel", 3), ("multiclass", 3)])
def test_kernels_choose_as_torch_does(
    monkeypatch: pytest.MonkeyPatch, mode: Mode, channels: int, grid: tuple[int, ...]
) -> None:
    logits = 3 * torch.randn(2, channels, *grid, generator=seeded())
    ours = uncertain_points(logits, 400, mode=mode, generator=seeded())
    monkeypatch.setattr("multilevel_loss.points.has_kernels", lambda *_: False)
    theirs = uncertain_points(logits, 400, mode=mode, generator=seeded())
    assert ours[:, 300:].equal(theirs[:, 300:])
    for own, expected in zip(ours[:, :300].tolist(), theirs[:, :300].tolist(), strict=True):
        assert sorted(own) == sorted(expected)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    ("mode", "channels", "density"), [("binary", 1, 0.001), ("binary", 1, 0.5), ("multiclass", 3, 0.999)]
)
@pytest.mark.parametrize("own_grid", [True, False])
def test_kernels_keep_to_a_mask_as_torch_does(
    monkeypatch: pytest.MonkeyPatch, mode: Mode, channels: int, density: float, own_grid: bool, grid: tuple[int, ...]
) -> None:
    logits = 3 * torch.randn(3, channels, *grid, generator=seeded())
    mask = torch.rand(3, 1, *grid, generator=seeded()) < density
    mask[1] = False
    mask[1, ..., -1] = True
    mask[2] = False
    if own_grid:
        logits[:2] = logits[:2].masked_fill(~mask[:2], torch.nan)
    else:
        logits = logits[..., 1:]
    ours = uncertain_points(logits, 400, mask=mask, generator=seeded())
    assert nearest_points(mask, ours)[:2].all()
    monkeypatch.setattr("multilevel_loss.points.has_kernels", lambda *_: False)
    theirs = uncertain_points(logits, 400, mask=mask, generator=seeded())
    assert ours[:, 300:].equal(theirs[:, 300:])
    # Points of one voxel are often equally uncertain, and then any of them will do.
    own, expected = (
        uncertainty(sample_points(logits[:2], points[:2, :300], mask[:2] if own_grid else None), mode).sort(1).values
        for points in (ours, theirs)
    )
    torch.testing.assert_close(own, expected)
    assert own.isfinite().all()


@pytest.mark.parametrize(("mode", "channels"), [("binary", 1), ("multiclass", 2)])
def test_kernels_choose_nan_first_and_as_many_as_are_asked_for_of_equals(mode: Mode, channels: int) -> None:
    logits = torch.zeros(1, channels, 300, 300)
    logits[:, -1, 100:120] = torch.nan
    chosen = uncertain_points(logits, 600, mode=mode, generator=seeded())
    assert len({tuple(point) for point in chosen[0].tolist()}) == 600
    drawn = torch.rand(1, 1950, 2, generator=seeded())
    unknown = [sample_points(logits, coords)[:, -1].isnan().sum() for coords in (chosen[:, :450], drawn[:, :1800])]
    assert unknown[0] == unknown[1] > 100
