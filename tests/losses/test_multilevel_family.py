"""The laws of the terms of the multi-level losses, and of their sums: what is absent or does not count, what moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel_loss import functional as F
from multilevel_loss import sample_points

TERMS = ["boundary_loss", "boundary_regression_loss", "uncertain_point_loss", "multilevel_loss"]
LOSSES = [*TERMS, "multilevel_network_loss"]
SHAPES = {"1-D": (13,), "2-D": (11, 9), "3-D": (7, 6, 5)}
every_loss = pytest.mark.parametrize("name", LOSSES)
every_term = pytest.mark.parametrize("name", TERMS)
every_grid = pytest.mark.parametrize("grid", SHAPES.values(), ids=SHAPES)


def loss_of(name: str, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
    """Return a loss of logits, which stand for every branch of a network; points are the same at every call."""
    if name.startswith("boundary"):
        return getattr(F, name)(logits, target, **options)
    coords = options.pop("point_coords", None)
    if coords is None:
        coords = points(logits)
    if name == "multilevel_network_loss":
        pixel = sample_points(logits.to(torch.promote_types(logits.dtype, torch.float32)), coords)
        return F.multilevel_network_loss(logits, logits, pixel, logits, target, point_coords=coords, **options)
    return getattr(F, name)(logits, target, point_coords=coords, **options)


def points(logits: Tensor) -> Tensor:
    shape = (len(logits), 40, logits.ndim - 2)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(logits.device)


def degenerate(kind: str, grid: tuple[int, ...]) -> Tensor:
    labels = torch.zeros(2, *grid, dtype=torch.long)
    if kind == "full":
        labels += 1
    elif kind == "one voxel":
        labels[(slice(None), *(side // 2 for side in grid))] = 1
    elif kind == "touching the border":
        labels[:, :2] = 1
    return labels


@every_loss
@every_grid
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["empty", "full", "one voxel", "touching the border"])
def test_finite_value_and_gradient_whatever_is_absent(
    name: str, grid: tuple[int, ...], channels: int, kind: str
) -> None:
    target = degenerate(kind, grid)
    for logits in (
        torch.zeros(2, channels, *grid),
        3 * torch.randn(2, channels, *grid),
        torch.full((2, channels, *grid), -100.0),
        torch.full((2, channels, *grid), 100.0),
        200.0 * target.unsqueeze(1).repeat(1, channels, *[1] * len(grid)) - 100,
    ):
        logits.requires_grad_()
        loss = loss_of(name, logits, target)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite()
        assert gradient.isfinite().all()


@every_loss
@pytest.mark.parametrize(("channels", "grid"), [(1, (5, 4)), (3, (4, 5)), (1, (3, 4, 3)), (2, (7,))])
def test_gradient_is_that_of_the_value(name: str, channels: int, grid: tuple[int, ...]) -> None:
    logits = (3 * torch.randn(2, channels, *grid, dtype=torch.float64)).requires_grad_()
    target, mask = torch.randint(max(channels, 2), (2, *grid)), torch.rand(2, *grid) > 0.2
    for options in ({}, {"mask": mask}):
        assert torch.autograd.gradcheck(lambda x, o=options: loss_of(name, x, target, **o), logits, fast_mode=True)


@every_loss
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_precision_at_volume_scale(name: str, precision: torch.dtype) -> None:
    logits = torch.full((1, 2, 32, 64, 64), -80.0, dtype=precision)
    logits[:, 1, 12:24, 10:50] = 80.0
    logits.requires_grad_()
    target = torch.zeros(1, 32, 64, 64, dtype=torch.uint8)
    target[:, 10:20] = 1
    with torch.autocast("cpu", dtype=precision):
        loss = loss_of(name, logits, target)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert gradient.dtype == precision
    assert gradient.isfinite().all()
    torch.testing.assert_close(loss, loss_of(name, logits.float(), target))


@every_loss
def test_compiled_without_graph_breaks_it_is_the_same(name: str) -> None:
    torch.compiler.reset()
    logits, target = torch.randn(2, 3, 8, 7, requires_grad=True), torch.randint(3, (2, 8, 7))
    coords = points(logits)
    options = {} if name.startswith("boundary") else {"point_coords": coords}
    compiled = torch.compile(loss_of, fullgraph=True, backend="aot_eager")
    results = [loss(name, logits, target, **options) for loss in (loss_of, compiled)]
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*(torch.autograd.grad(result, logits)[0] for result in results))


@every_loss
@every_grid
def test_order_of_samples_and_flips_change_nothing(name: str, grid: tuple[int, ...]) -> None:
    logits, target = 3 * torch.randn(3, 2, *grid), torch.randint(2, (3, *grid))
    coords = points(logits)

    def replayed(logits: Tensor, target: Tensor, coords: Tensor) -> Tensor:
        options = {} if name.startswith("boundary") else {"point_coords": coords}
        return loss_of(name, logits, target, **options)

    expected, order = replayed(logits, target, coords), torch.tensor([2, 0, 1])
    torch.testing.assert_close(replayed(logits[order], target[order], coords[order]), expected)
    for axis in range(1, len(grid) + 1):
        flipped = coords.clone()
        flipped[..., axis - 1] = 1 - flipped[..., axis - 1]
        torch.testing.assert_close(replayed(logits.flip(-axis), target.flip(-axis), flipped), expected)
    if len(grid) > 1:
        turned = replayed(logits.transpose(-1, -2), target.transpose(-1, -2), coords[..., [1, 0, 2][: len(grid)]])
        torch.testing.assert_close(turned, expected)


@every_term
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", ["labels", "memberships"])
def test_a_masked_voxel_has_no_say_whatever_its_logits_and_its_label(name: str, channels: int, form: str) -> None:
    grid, classes = (8, 7), max(channels, 2)
    logits, labels = 3 * torch.randn(2, channels, *grid), torch.randint(classes, (2, *grid))
    mask, others = torch.rand(2, *grid) > 0.3, torch.randint(classes, (2, *grid))

    def target_of(labels: Tensor) -> Tensor:
        if form == "labels":
            return labels
        if channels == 1:
            return labels.unsqueeze(1).float()
        return torch.nn.functional.one_hot(labels, classes).movedim(-1, 1).float()

    poisoned = logits.masked_fill(~mask.unsqueeze(1), torch.nan).requires_grad_()
    loss = loss_of(name, poisoned, target_of(labels), mask=mask)
    (gradient,) = torch.autograd.grad(loss, poisoned)
    assert gradient.isfinite().all()
    assert gradient[(~mask).unsqueeze(1).expand_as(gradient)].count_nonzero() == 0
    assert gradient.count_nonzero() > 0
    relabelled = target_of(torch.where(mask, labels, others))
    assert loss_of(name, logits, relabelled, mask=mask) == loss
    if form == "labels":
        ignored = labels.masked_fill(~mask, 255)
        assert loss_of(name, logits, ignored, ignore_index=255) == loss


@every_term
def test_a_class_that_is_not_labelled_has_no_say_in_that_sample(name: str) -> None:
    logits, target = 3 * torch.randn(2, 3, 8, 7), (torch.rand(2, 3, 8, 7) > 0.6).float()
    class_mask = torch.tensor([[1, 0, 1], [1, 1, 1]])
    options = {"mode": "multilabel", "class_mask": class_mask}
    logits.requires_grad_()
    loss = loss_of(name, logits, target, **options)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[0, 1].count_nonzero() == 0
    assert gradient[1, 1].count_nonzero() > 0
    relabelled = target.clone()
    relabelled[0, 1] = 1 - relabelled[0, 1]
    assert loss_of(name, logits, relabelled, **options) == loss


def test_points_on_a_coarser_grid_keep_off_masked_labels() -> None:
    labels, mask = torch.zeros(1, 16, 16, dtype=torch.long), torch.ones(1, 16, 16, dtype=torch.bool)
    labels[..., 8:], mask[..., 8:] = 1, False
    coarse = torch.randn(1, 1, 4, 4)
    _, terms = F.multilevel_loss(  # type: ignore[misc]
        torch.zeros(1, 1, 16, 16), labels, point_input=coarse, mask=mask, return_components=True,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    _, expected = F.multilevel_loss(  # type: ignore[misc]
        torch.zeros(1, 1, 16, 16), torch.zeros_like(labels), point_input=coarse, mask=mask, return_components=True,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert terms["pixel"] == expected["pixel"]
