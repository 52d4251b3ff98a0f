"""Agreement of the boundary losses, value and gradient, with independent implementations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from multilevel_loss import functional as F


def blobs(*shape: int) -> tuple[Tensor, Tensor]:
    """Return logits (B, C, *spatial) and a label map whose regions are a few voxels thick."""
    batch, channels, *grid = shape
    coarse = torch.randn(2, batch, channels, *[side // 3 for side in grid])
    mode = "bilinear" if len(grid) == 2 else "trilinear"
    logits, labels = (torch.nn.functional.interpolate(x, grid, mode=mode) for x in coarse)
    labels = labels.argmax(1) if channels > 1 else (labels[:, 0] > 0.3).long()
    return (6 * logits).requires_grad_(), labels


def agree(ours: Callable[[], Tensor], theirs: Callable[[], Tensor], logits: Tensor) -> None:
    values = [ours(), theirs()]
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-6)
    gradients = [torch.autograd.grad(value, logits)[0] for value in values]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [(2, 3, 17, 20), (2, 3, 9, 10, 11), (2, 1, 17, 20)])
@pytest.mark.parametrize("alpha", [1.0, 2.0])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("include_background", [False, True])
def test_hausdorff_dt_of_monai(shape: tuple[int, ...], alpha: float, log: bool, include_background: bool) -> None:
    losses = pytest.importorskip("monai.losses")
    logits, target = blobs(*shape)
    softmax = shape[1] > 1
    theirs = (losses.LogHausdorffDTLoss if log else losses.HausdorffDTLoss)(
        alpha=alpha, include_background=include_background, softmax=softmax, sigmoid=not softmax, to_onehot_y=softmax
    )
    agree(
        lambda: F.hausdorff_dt_loss(logits, target, alpha=alpha, log=log, include_background=include_background),
        lambda: theirs(logits, target.unsqueeze(1).float()),  # it truncates the distances of integer targets
        logits,
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [(2, 3, 17, 20), (2, 3, 9, 10, 11)])
def test_boundary_of_monai(shape: tuple[int, ...]) -> None:
    losses = pytest.importorskip("monai.losses")
    if not hasattr(losses, "BoundaryLoss"):
        pytest.skip("MONAI has no BoundaryLoss before 1.6")
    logits, target = blobs(*shape)
    theirs = losses.BoundaryLoss(softmax=True, to_onehot_y=True)
    agree(
        lambda: F.boundary_loss(logits, target, boundary="kervadec"),
        lambda: theirs(logits, target.unsqueeze(1)),
        logits,
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [(2, 3, 17, 20), (2, 3, 9, 10, 11)])
@pytest.mark.parametrize(("alpha", "erosions"), [(2.0, 10), (1.0, 3)])
def test_hausdorff_er_of_kornia(shape: tuple[int, ...], alpha: float, erosions: int) -> None:
    losses = pytest.importorskip("kornia.losses")
    logits, target = blobs(*shape)
    theirs = (losses.HausdorffERLoss if len(shape) == 4 else losses.HausdorffERLoss3D)(alpha=alpha, k=erosions)
    agree(
        lambda: F.hausdorff_er_loss(logits, target, alpha=alpha, erosions=erosions),
        lambda: theirs(logits.softmax(1), target.unsqueeze(1)),
        logits,
    )
