"""The sums that region losses are made of, and their kernels beside torch."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from multilevel_loss import MLLoss, signed_distance_map
from multilevel_loss._checks import Mode
from multilevel_loss._targets import prepare
from multilevel_loss.functional import boundary_loss, cross_entropy_loss, dice_ce_loss, dice_loss, hausdorff_dt_loss
from multilevel_loss.losses.region import _voxel_sums_cpu, _voxel_sums_torch
from multilevel_loss.losses.region._voxel_sums import _FusedSums, voxel_sums


def _allocations(step: Callable[[], object]) -> list[int]:
    """Return the bytes that torch allocates, and negative those that it frees, in order."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]


every_gamma = pytest.mark.parametrize("gamma", [None, 0.0, 0.5, 2.0])
either_squared = pytest.mark.parametrize("squared", [False, True])


@either_squared
@every_gamma
@pytest.mark.parametrize("errors", [False, True])
@pytest.mark.parametrize("softmax", [False, True])
def test_parts_make_the_whole(
    monkeypatch: pytest.MonkeyPatch, softmax: bool, errors: bool, squared: bool, gamma: float | None
) -> None:
    channels = 3 if softmax else 1
    logits = 3 * torch.randn(2, channels, 35, dtype=torch.float64, requires_grad=True)
    truth = torch.randint(max(channels, 2), (2, 1, 35))
    weight, field = torch.rand(2, 1, 35, dtype=torch.float64), torch.randn(2, channels, 35, dtype=torch.float64)
    arguments, options = (logits, truth, weight, field), (softmax, squared, gamma, errors)
    whole = _voxel_sums_torch.whole_sums(*arguments, *options)
    asked = [number for number, each in enumerate(whole[:7]) if each is not None]
    by_sums = torch.randn(len(asked), 2, channels, dtype=torch.float64)
    (expected,) = torch.autograd.grad([whole[n] for n in asked], logits, list(by_sums))

    def in_parts(values: Tensor) -> Iterator[slice]:
        yield from (slice(start, start + 4) for start in range(0, values.shape[2], 4))

    monkeypatch.setattr(_voxel_sums_torch, "_parts", in_parts)
    *sums, constants = _FusedSums.apply(*arguments, None, True, *options)
    torch.testing.assert_close((*sums, *constants), (*whole, *_voxel_sums_torch.farthest(None if errors else field)))
    (gradient,) = torch.autograd.grad([sums[n] for n in asked], logits, list(by_sums))
    torch.testing.assert_close(gradient, expected)


@either_squared
@every_gamma
@pytest.mark.parametrize(("weighted", "errors"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize(
    ("channels", "softmax", "soft"),
    [(3, True, False), (3, True, True), (1, False, False), (1, False, True), (2, False, True)],
)
@pytest.mark.parametrize("voxels", [33_001, 777])  # more than one item, less than one block
def test_kernels_agree_with_torch(
    channels: int,
    softmax: bool,
    soft: bool,
    voxels: int,
    weighted: bool,
    errors: bool,
    squared: bool,
    gamma: float | None,
) -> None:
    logits = 5 * torch.randn(2, channels, voxels)
    logits[0, 0, :5] = torch.tensor([80.0, -80.0, 300.0, -300.0, 0.0])
    truth = torch.rand(2, channels, voxels).softmax(1) if soft else torch.randint(max(channels, 2), (2, 1, voxels))
    weight, field = (torch.rand(2, 1, voxels), torch.randn_like(logits)) if weighted else (None, None)
    arguments = (logits, truth, weight, field)
    wide = [x.double() if x is not None and x.is_floating_point() else x for x in arguments]
    options = (softmax, squared, gamma, errors)
    expected, _ = _voxel_sums_torch.sums(*wide, *options, False)
    by_sums = [None if each is None else torch.randn(2, channels) for each in expected[:7]]
    wide_by = [None if each is None else each.double() for each in by_sums]
    slope = _voxel_sums_torch.gradient(*wide, *options, wide_by, None, None)
    for keep in (False, True):
        sums, kept = _voxel_sums_cpu.sums(*arguments, *options, keep)
        in_double = [None if each is None else each.double() for each in sums]
        torch.testing.assert_close(in_double, list(expected), rtol=3e-6, atol=1e-5)
        assert (kept is not None) == keep
        gradient = _voxel_sums_cpu.gradient(*arguments, *options, by_sums, kept, None)
        torch.testing.assert_close(gradient.double(), slope, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_graph_may_be_gone_through_again(channels: int) -> None:
    logits = torch.randn(channels, 2, 300, 300).transpose(0, 1).requires_grad_()  # not in the order of the kernels
    loss = dice_ce_loss(logits, torch.randint(max(channels, 2), (2, 300, 300)))
    first, second, third = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for _ in range(3))
    torch.testing.assert_close(second, first, rtol=1e-5, atol=1e-12)
    assert torch.equal(third, second)


@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_gradient_in_the_place_of_a_map_is_that_beside_it(
    channels: int, dtype: torch.dtype, include_background: bool
) -> None:
    logits = torch.randn(2, channels, 300, 300, dtype=dtype, requires_grad=True)
    target = torch.randint(max(channels, 2), (2, 300, 300))
    distances = signed_distance_map(target, num_classes=None if channels == 1 else channels)
    options = {"include_background": include_background, "normalize": "max"}
    given, own = (
        boundary_loss(logits, target, distance_map=distances, **options),
        boundary_loss(logits, target, **options),
    )
    torch.testing.assert_close(own, given)
    (expected,) = torch.autograd.grad(given, logits)
    first, second = (torch.autograd.grad(own, logits, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-12)
    assert torch.equal(second, first)  # with another map, for the gradient has taken the place of that


@pytest.mark.parametrize("options", [{"include_background": False}, {"alpha": 1.5}, {"side": "inside"}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_gradient_in_the_place_of_weights_is_that_of_every_voxel(
    channels: int, dtype: torch.dtype, options: dict[str, Any]
) -> None:
    logits = torch.randn(2, channels, 300, 300, dtype=dtype, requires_grad=True)
    target, mask = torch.randint(max(channels, 2), (2, 300, 300)), torch.rand(2, 300, 300) > 0.1
    loss = hausdorff_dt_loss(logits, target, mask=mask, **options)
    of_voxels = hausdorff_dt_loss(logits, target, mask=mask, reduction="none", **options)
    every = of_voxels.sum() / (mask.sum() * of_voxels.shape[1])
    torch.testing.assert_close(loss, every)
    (expected,) = torch.autograd.grad(every, logits)
    first, second = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-12)
    assert torch.equal(second, first)  # with other weights, for the gradient has taken the place of those


def test_a_loss_that_is_kept_after_its_gradient_keeps_nothing_else() -> None:
    leaf, target = torch.randn(1, 1, 300, 300, requires_grad=True), torch.randint(2, (1, 300, 300))
    logits = 2 * leaf
    tensors = weakref.WeakSet([logits, target])
    loss = boundary_loss(logits, target)
    loss.backward()
    del logits, target
    assert loss.isfinite()
    assert not tensors


def test_nothing_is_kept_for_a_gradient_that_nobody_asks_for() -> None:
    logits, target = torch.randn(1, 1, 512, 512, requires_grad=True), torch.randint(2, (1, 512, 512))
    with torch.no_grad():
        dice_loss(logits, target)
        assert max(_allocations(lambda: dice_loss(logits, target))) < logits.nbytes / 2


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("channels", "mode"), [(3, "multiclass"), (2, "multilabel"), (1, "binary")])
def test_a_field_weighs_the_probability(channels: int, mode: Mode, masked: bool) -> None:
    logits = torch.randn(2, channels, 40, 50, 20, requires_grad=True)
    truth, field = torch.rand(logits.shape), 9 * torch.randn(logits.shape)
    mask = torch.rand(2, 40, 50, 20) > 0.3 if masked else None
    prepared = prepare(logits, truth, mode=mode, mask=mask)
    sums = voxel_sums(prepared, field=field)
    of_class = torch.randn(2, channels)
    p = logits.softmax(1) if mode == "multiclass" else logits.sigmoid()
    p = p if mask is None else p * mask.unsqueeze(1)
    for side, of_side in ((sums.above, field.relu()), (sums.below, -(-field).relu())):
        expected = (p * of_side).flatten(2).sum(2)
        torch.testing.assert_close(side, expected, rtol=1e-5, atol=1e-2)
        gradients = (torch.autograd.grad(x, logits, of_class, retain_graph=True)[0] for x in (side, expected))
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_sums_are_made_once_for_all_who_need_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(torch.randn(1, 2, 9), torch.randint(2, (1, 9)), mode=None)
    made = voxel_sums(prepared, gamma=0.0, field=torch.randn(1, 2, 9))
    assert voxel_sums(prepared) is made
    assert voxel_sums(prepared, gamma=0.0) is made
    others = [voxel_sums(prepared, **options) for options in ({"gamma": 2.0}, {"squared": True})]
    weighted = voxel_sums(prepared, weight=torch.zeros(1, 1, 9))
    assert all(other is not made for other in [*others, weighted])
    assert voxel_sums(prepared).predicted.sum() > 0  # not the weighted ones


def test_exponential_and_logarithm_are_good_to_the_last_places() -> None:
    exponents = -torch.logspace(-8, 1.93, 500)
    ours = torch.tensor([_voxel_sums_cpu._exp(x) for x in exponents.numpy()])
    torch.testing.assert_close(ours, exponents.exp(), rtol=5e-7, atol=0)
    assert torch.finfo(torch.float32).tiny <= _voxel_sums_cpu._exp(-np.float32(np.inf)) < 1.3e-38
    assert np.isnan(_voxel_sums_cpu._exp(np.float32(np.nan)))
    values = torch.logspace(-37, 38, 500)
    ours = torch.tensor([_voxel_sums_cpu._log(x) for x in values.numpy()])
    torch.testing.assert_close(ours, values.log(), rtol=2e-7, atol=1e-7)
    fractions = torch.logspace(-30, 0, 500)
    ours = torch.tensor([_voxel_sums_cpu._log1p(x) for x in fractions.numpy()])
    torch.testing.assert_close(ours, fractions.log1p(), rtol=4e-7, atol=0)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_powers_are_finite_from_0_to_beyond_1(gamma: float) -> None:
    p = torch.tensor([0.0, 1e-38, 0.3, 1 - 6e-8, 1.0, 1 + 1.2e-7])  # softmax may round to above 1
    assert _voxel_sums_torch.focal_term(torch.ones(6), p, gamma)[3:].abs().max() < 1e-3
    term = torch.empty_like(p)
    _voxel_sums_cpu._focus(p.numpy(), np.float32(gamma), term.numpy())
    assert term[3:].abs().max() < 1e-3
    slope = term.clone()
    _voxel_sums_cpu._slope(p.numpy(), np.float32(gamma), slope.numpy())
    assert (slope <= 0).all()
    assert slope[:2].tolist() == [-1, -1]
    assert slope[2].item() == pytest.approx(0.7**gamma * (gamma * 0.3 * math.log(0.3) / 0.7 - 1), rel=1e-5)
    assert slope[3:].abs().max() < 1e-3


@pytest.mark.parametrize("channels", [1, 3])
def test_threads_change_nothing_and_strides_little(channels: int) -> None:
    logits, target = torch.randn(2, channels, 256, 301), torch.randint(max(channels, 2), (2, 256, 301))
    threads, losses = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            losses.append(dice_ce_loss(logits, target))
    finally:
        torch.set_num_threads(threads)
    assert losses[0] == losses[1]
    for strided in (logits.to(memory_format=torch.channels_last), logits.mT.contiguous().mT):
        torch.testing.assert_close(dice_ce_loss(strided, target), losses[0])
    # A part of a batch, in another dtype and on its own.
    torch.testing.assert_close(dice_ce_loss(logits.double(), target).float(), losses[0])
    alone = torch.stack([dice_ce_loss(logits[[n]], target[[n]]) for n in range(2)]).mean()
    torch.testing.assert_close(alone, losses[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_nan_is_seen_unless_it_is_masked(channels: int) -> None:
    logits, target = torch.randn(1, channels, 300, 300), torch.randint(max(channels, 2), (1, 300, 300))
    for channel in range(channels):
        wrong = logits.clone()
        wrong[0, channel, 7, 9] = torch.nan
        assert dice_loss(wrong, target).isnan()
        assert cross_entropy_loss(wrong, target).isnan()
        mask = torch.ones(1, 300, 300, dtype=torch.bool)
        mask[0, 7, 9] = False
        assert dice_ce_loss(wrong, target, mask=mask).isfinite()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize("channels", [1, 2])
def test_memory_is_little_more_than_the_gradient(dtype: torch.dtype, channels: int) -> None:
    logits = torch.randn(1, channels, 512, 512, requires_grad=True)
    target = torch.randint(2, (1, channels if dtype.is_floating_point else 1, 512, 512)).to(dtype)
    for loss in (dice_loss, cross_entropy_loss, dice_ce_loss):
        loss(logits, target).backward()
        logits.grad = None
        used = torch.tensor(_allocations(lambda step=loss: step(logits, target).backward()))
        assert used.cumsum(0).max() < 1.26 * 4 * logits.numel()  # of long labels there is a copy in bytes


@pytest.mark.parametrize("channels", [1, 3])
def test_a_map_needs_no_more_memory_than_the_gradient(channels: int) -> None:
    logits = torch.randn(1, channels, 512, 512, requires_grad=True)
    target, loss = torch.randint(max(channels, 2), (1, 512, 512)), MLLoss()
    loss(logits, target).backward()
    logits.grad = None
    used = torch.tensor(_allocations(lambda: loss(logits, target).backward()))
    assert used.cumsum(0).max() < 1.5 * 4 * logits.numel()


def test_second_derivatives_are_refused() -> None:
    logits = torch.randn(1, 1, 2**17, requires_grad=True)
    target = torch.ones(1, 2**17, dtype=torch.long)
    (slope,) = torch.autograd.grad(dice_loss(logits, target), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@pytest.mark.parametrize("loss", [dice_ce_loss, boundary_loss])
def test_labels_that_do_not_count_weigh_nothing(loss: Callable[..., torch.Tensor]) -> None:
    logits = torch.randn(2, 1, 300, 300, requires_grad=True)
    target = torch.randint(3, (2, 300, 300))
    target[target == 2] = 255
    ours, theirs = (loss(x, target, ignore_index=255) for x in (logits, logits.double()))
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-7)
    own, expected = (torch.autograd.grad(x, logits)[0] for x in (ours, theirs))
    torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-9)
    assert own[target.unsqueeze(1) == 255].eq(0).all()
