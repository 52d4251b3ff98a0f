"""The elements that TopK chooses, by the kernel and by torch, beside those of a sort."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from multilevel_loss.functional import topk_loss
from multilevel_loss.losses.region import _hardest_cpu
from multilevel_loss.losses.region.topk import hardest

either = pytest.mark.parametrize("choose", [hardest, _hardest_cpu.hardest], ids=["torch", "kernel"])

ROWS = {
    "spread over all magnitudes": torch.logspace(-44, 38, 501)[torch.randperm(501)],
    "near each other": 1 + torch.rand(501) * 1e-6,
    "mostly zeros": torch.rand(501) * (torch.rand(501) < 0.05),
    "equal": torch.full((501,), 0.3),
    "two values": torch.tensor([0.0, 2.0]).repeat(251)[:501],
    "zeros of both signs": torch.tensor([0.0, -0.0, 1.0]).repeat(167),
}


@either
@pytest.mark.parametrize("k", [1, 2, 50, 250, 500, 501])
@pytest.mark.parametrize("name", ROWS)
def test_shares_are_those_of_a_sort(name: str, k: int, choose: Callable[[Tensor, int], Tensor]) -> None:
    values = torch.stack([ROWS[name], ROWS[name].flip(0)])
    shares = choose(values, k)
    least = values.sort(dim=1, descending=True).values[:, k - 1 : k]
    assert (shares[values > least] == 1).all()
    assert (shares[values < least] == 0).all()
    for row, row_shares, row_least in zip(values, shares, least, strict=True):
        of_equals = row_shares[row == row_least]
        assert (of_equals == of_equals[0]).all()
        assert 0 < of_equals[0] <= 1
    torch.testing.assert_close(shares.sum(1), torch.full((2,), float(k)))


@either
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_nan_is_seen(sign: float, choose: Callable[[Tensor, int], Tensor]) -> None:
    values = torch.rand(1, 100)
    values[0, 40] = torch.tensor(torch.nan).copysign(torch.tensor(sign))
    assert (values * choose(values, 5)).sum().isnan()


@pytest.mark.parametrize("channels", [1, 3])
def test_kernel_and_sort_give_one_loss(channels: int) -> None:
    logits = 4 * torch.randn(2, channels, 200, 200, requires_grad=True)
    target = torch.randint(max(channels, 2), (2, 200, 200))
    ours, expected = topk_loss(logits, target), topk_loss(logits.double(), target)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-6, atol=0)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-9)
