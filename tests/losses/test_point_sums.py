from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel_loss._checks import Mode
from multilevel_loss._targets import prepare
from multilevel_loss.functional import dice_loss, uncertain_point_loss
from multilevel_loss.losses.pixel._point_sums import PointSums, point_sums

GRIDS = [(70_001,), (1, 65_537), (257, 263), (1, 1, 66_000), (41, 37, 53)]


def points_to_the_edge(grid: tuple[int, ...], count: int = 300) -> Tensor:
    coords = torch.rand(2, count, len(grid), generator=torch.Generator().manual_seed(0))
    coords[:, :2] = torch.tensor([0.0, 1.0]).view(2, 1)
    return coords


def sums_of(logits: Tensor, target: Tensor, coords: Tensor, mode: Mode | None = None) -> PointSums:
    sums = point_sums(prepare(logits, target, mode=mode, same_grid=False), coords)
    assert sums is not None
    return sums


def assert_agrees_with_torch(logits: Tensor, target: Tensor, coords: Tensor, **options: Any) -> None:
    """Value and gradient by the kernels are those by torch in double precision, whichever way they are reduced."""
    for reduction in ("mean", "sum"):
        given = {"point_coords": coords, "reduction": reduction, **options}
        ours = uncertain_point_loss(logits, target, **given)
        wide = target.double() if target.is_floating_point() else target
        theirs = uncertain_point_loss(logits.double(), wide, **given)
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=0)
        own, expected = (torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs))
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.int64])
@pytest.mark.parametrize("channels", [1, 3])
def test_kernels_agree_with_torch_on_labels(channels: int, dtype: torch.dtype, grid: tuple[int, ...]) -> None:
    logits = (4 * torch.randn(2, channels, *grid)).requires_grad_()
    target = torch.randint(2 if dtype == torch.bool else max(channels, 2), (2, *grid)).to(dtype)
    assert_agrees_with_torch(logits, target, points_to_the_edge(grid))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("mode", "channels"), [("binary", 1), ("multilabel", 3), ("multiclass", 3)])
def test_kernels_agree_with_torch_on_memberships(mode: Mode, channels: int, grid: tuple[int, ...]) -> None:
    logits = (4 * torch.randn(2, channels, *grid)).requires_grad_()
    target = torch.rand(2, channels, *grid)
    weight = torch.arange(1.0, channels + 1)
    class_mask = torch.ones(2, channels)
    class_mask[0, -1] = 0
    assert_agrees_with_torch(logits, target, points_to_the_edge(grid), mode=mode, weight=weight, class_mask=class_mask)
    assert_agrees_with_torch(logits, target, points_to_the_edge(grid), mode=mode, include_background=False)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_kernels_take_memberships_of_any_dtype(dtype: torch.dtype) -> None:
    logits = torch.randn(2, 3, 257, 263, requires_grad=True)
    target, coords = torch.randint(2, (2, 3, 257, 263)).to(dtype), points_to_the_edge((257, 263))
    assert sums_of(logits, target, coords, "multilabel").entropy.shape == (2, 3)
    assert_agrees_with_torch(logits, target, coords, mode="multilabel")


@pytest.mark.parametrize("channels", [1, 2])
def test_kernels_take_a_target_of_another_grid(channels: int) -> None:
    logits = torch.randn(2, channels, 263, 257, requires_grad=True)
    assert_agrees_with_torch(logits, torch.randint(2, (2, 100, 90)), points_to_the_edge((263, 257)))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("mode", "channels"), [("binary", 1), ("multilabel", 3), ("multiclass", 3)])
def test_kernels_agree_with_torch_on_what_a_mask_leaves(mode: Mode, channels: int, grid: tuple[int, ...]) -> None:
    logits, coords = (4 * torch.randn(2, channels, *grid)).requires_grad_(), points_to_the_edge(grid)
    labels, memberships = torch.randint(max(channels, 2), (2, *grid)), torch.rand(2, channels, *grid)
    mask = torch.rand(2, *grid) > 0.5
    mask[0, grid[0] // 2 :] = False  # where a point has no cell around it
    for target in (labels, memberships) if mode != "multilabel" else (memberships,):
        assert_agrees_with_torch(logits, target, coords, mode=mode, mask=mask)
    nothing = torch.zeros_like(mask)
    assert uncertain_point_loss(logits, memberships, point_coords=coords, mode=mode, mask=nothing) == 0


@pytest.mark.parametrize("channels", [1, 2])
def test_kernels_take_a_mask_of_another_grid(channels: int) -> None:
    logits = torch.randn(2, channels, 263, 257, requires_grad=True)
    target, mask = torch.randint(2, (2, 100, 90)), torch.rand(2, 100, 90) > 0.5
    assert_agrees_with_torch(logits, target, points_to_the_edge((263, 257)), mask=mask)


@pytest.mark.parametrize("channels", [1, 2])
def test_kernels_are_exact_for_large_logits_and_keep_nan(channels: int) -> None:
    coords = torch.full((1, 1, 1), 0.5)
    for logit, expected in ((80.0, 80.0), (-80.0, 0.0), (300.0, 300.0), (torch.nan, torch.nan)):
        logits = torch.full((1, channels, 70_001), logit)
        logits[:, :-1] = 0  # of a softmax
        loss = uncertain_point_loss(logits, torch.zeros(1, 70_001, dtype=torch.uint8), point_coords=coords)
        torch.testing.assert_close(loss, torch.tensor(expected), equal_nan=True, rtol=1e-6, atol=1e-34)


def test_kernels_read_nothing_beyond_the_field() -> None:
    logits, target = torch.full((1, 1, 300, 300), 7.0), torch.ones(1, 1, 300, 300)
    coords = torch.tensor([[[torch.nan, 0.5], [torch.inf, -torch.inf], [-1e30, 1e30]]])
    assert sums_of(logits, target, coords).entropy.item() == pytest.approx(3 * 9.11466e-4, rel=1e-5)


def test_joined_gradients_are_those_of_each_alone() -> None:
    logits, coords = torch.randn(2, 1, 257, 263, requires_grad=True), points_to_the_edge((257, 263))
    target = torch.randint(2, (2, 257, 263))
    alone = uncertain_point_loss(logits.double(), target, point_coords=coords, reduction="sum")
    expected_points = torch.autograd.grad(alone, logits)[0]
    expected_dice = torch.autograd.grad(dice_loss(logits, target), logits)[0]
    prepared = prepare(logits, target, mode=None)
    sums = point_sums(prepared, coords)
    assert sums is not None
    joined = prepared.logits
    points, dice, shared = sums.entropy.sum(), dice_loss(joined, target), (3 * joined).sum()
    # Each may be asked for, again and in any order; a gradient that all voxels share is left as it is.
    for _ in range(2):
        torch.testing.assert_close(torch.autograd.grad(points, logits, retain_graph=True)[0], expected_points)
        torch.testing.assert_close(torch.autograd.grad(dice, logits, retain_graph=True)[0], expected_dice)
        both = torch.autograd.grad(points + dice, logits, retain_graph=True)[0]
        torch.testing.assert_close(both, expected_points + expected_dice)
        all_of_them = torch.autograd.grad(points + dice + shared, logits, retain_graph=True)[0]
        torch.testing.assert_close(all_of_them, expected_points + expected_dice + 3)
        beside = torch.autograd.grad(points + shared, logits, retain_graph=True)[0]
        torch.testing.assert_close(beside, expected_points + 3)
