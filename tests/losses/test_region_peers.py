"""Agreement of the region losses, value and gradient, with independent implementations, their options mapped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel_loss import functional as F

SHAPES = [(2, 3, 9, 8), (2, 3, 5, 6, 7), (2, 1, 9, 8)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
either = pytest.mark.parametrize("include_background", [True, False])


def case(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return logits (B, C, *spatial) and a target (B, 1, *spatial), labels or memberships, where each class occurs."""
    logits = 2 * torch.randn(shape, dtype=torch.float64)
    target = torch.randint(max(shape[1], 2), (shape[0], 1, *shape[2:]))
    return logits.requires_grad_(), target if shape[1] > 1 else target.double()


def agree(ours: Tensor, theirs: Tensor, logits: Tensor, rtol: float = 1e-6) -> None:
    torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=rtol, atol=rtol)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)), rtol=rtol, atol=rtol)


def monai(name: str, shape: tuple[int, ...], **options: Any) -> Callable[[Tensor, Tensor], Tensor]:
    losses = pytest.importorskip("monai.losses")
    softmax = shape[1] > 1
    activation = {"softmax": softmax, "sigmoid": not softmax}
    return getattr(losses, name)(to_onehot_y=softmax, **(activation | options))


@pytest.mark.filterwarnings("ignore:single channel prediction")
@every_shape
@either
@pytest.mark.parametrize("batch", [True, False])
def test_overlap_of_monai(shape: tuple[int, ...], include_background: bool, batch: bool) -> None:
    logits, target = case(shape)
    common = {"include_background": include_background, "batch": batch, "smooth_nr": 1e-5, "smooth_dr": 1e-5}
    for name, ours, options, mapped in [
        ("DiceLoss", F.dice_loss, {}, {}),
        ("DiceLoss", F.dice_loss, {"squared_pred": True}, {"squared": True}),
        # Its IoU takes ε of twice the counts.
        ("DiceLoss", F.iou_loss, {"jaccard": True}, {"smooth_nr": 5e-6, "smooth_dr": 5e-6}),
        ("TverskyLoss", F.tversky_loss, {"alpha": 0.2, "beta": 0.9}, {"alpha": 0.2, "beta": 0.9}),
    ]:
        theirs = monai(name, shape, **common, **options)
        agree(ours(logits, target, **(common | mapped)), theirs(logits, target), logits)
    theirs = monai("MCCLoss", shape, include_background=include_background, batch=batch, smooth_nr=0, smooth_dr=0)
    ours = F.matthews_correlation_loss(logits, target, include_background=include_background, batch=batch)
    agree(ours, theirs(logits, target), logits)


@pytest.mark.filterwarnings("ignore:single channel prediction")
@every_shape
@either
@pytest.mark.parametrize("batch", [True, False])
def test_generalized_dice_of_monai(shape: tuple[int, ...], include_background: bool, batch: bool) -> None:
    logits, target = case(shape)
    # Its ε is relative to 1 / volume², ours to that of the smallest class; without ε they agree.
    # Its weights are float32.
    common = {"include_background": include_background, "batch": batch, "smooth_nr": 0, "smooth_dr": 0}
    theirs = monai("GeneralizedDiceLoss", shape, **common)
    agree(F.generalized_dice_loss(logits, target, **common), theirs(logits, target), logits, 1e-5)


def test_generalized_wasserstein_dice_of_monai() -> None:
    losses = pytest.importorskip("monai.losses")
    logits, target = case((2, 3, 9, 8))
    distances = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.5], [1.0, 0.5, 0.0]], dtype=torch.float64)
    theirs = losses.GeneralizedWassersteinDiceLoss(distances, smooth_nr=1e-5, smooth_dr=1e-5)
    ours = F.generalized_wasserstein_dice_loss(logits, target, distances=distances, smooth_nr=1e-5, smooth_dr=1e-5)
    agree(ours, theirs(logits, target), logits)


@pytest.mark.parametrize("shape", [(2, 1, 12, 13), (2, 1, 9, 10, 11)], ids=str)
@pytest.mark.parametrize("iterations", [0, 3])
def test_cl_dice_of_monai(shape: tuple[int, ...], iterations: int) -> None:
    # One channel: its sums are over all channels of a sample.
    logits, _ = case(shape)
    target = (torch.nn.functional.avg_pool1d(torch.rand(shape).flatten(2), 5, 1, 2) > 0.55).view(shape).double()
    theirs = monai("SoftclDiceLoss", shape, iter_=iterations, smooth=1e-12)
    ours = F.cl_dice_loss(logits, target, iterations=iterations, smooth_nr=1.0, smooth_dr=1.0)
    agree(ours, theirs(logits, target), logits)


@every_shape
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_of_monai(shape: tuple[int, ...], gamma: float) -> None:
    losses = pytest.importorskip("monai.losses")
    logits, target = case(shape)
    softmax = shape[1] > 1
    for alpha in (None, 0.25):
        theirs = losses.FocalLoss(gamma=gamma, alpha=alpha, use_softmax=softmax, to_onehot_y=softmax)
        # Its softmax form divides by the number of voxels and of classes. It computes in float32.
        agree(F.focal_loss(logits, target, gamma=gamma, alpha=alpha) / shape[1], theirs(logits, target), logits, 1e-5)


@pytest.mark.filterwarnings("ignore:single channel prediction")
@every_shape
@pytest.mark.parametrize("squared", [False, True])
def test_sums_of_monai(shape: tuple[int, ...], squared: bool) -> None:
    logits, target = case(shape)
    common = {"squared_pred": squared, "smooth_nr": 1e-5, "smooth_dr": 1e-5, "batch": True}
    mapped = {"squared": squared, "smooth_nr": 1e-5, "smooth_dr": 1e-5, "batch": True}
    for background in (True, False):
        both = {"include_background": background}
        theirs = monai("DiceCELoss", shape, lambda_dice=0.7, lambda_ce=2.0, **common, **both)
        ours = F.dice_ce_loss(logits, target, dice_weight=0.7, ce_weight=2.0, **mapped, **both)
        agree(ours, theirs(logits, target), logits)
    if shape[1] == 1:  # its focal term knows sigmoid alone, even beside a softmax Dice
        theirs = monai("DiceFocalLoss", shape, lambda_focal=0.5, gamma=1.5, **common)
        agree(F.dice_focal_loss(logits, target, gamma=1.5, **mapped), theirs(logits, target), logits, 1e-5)


def test_dice_ce_with_class_weights_of_monai() -> None:
    logits, target = case((2, 3, 9, 8))
    weight = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    # Its Dice term multiplies by the weights and divides by the number of classes, ours by the sum of the weights.
    theirs = monai("DiceCELoss", (2, 3), weight=weight, smooth_nr=1e-6, smooth_dr=1e-6)
    ours = F.dice_ce_loss(logits, target, weight=weight, dice_weight=weight.sum().item() / 3)
    agree(ours, theirs(logits, target), logits)


@pytest.mark.parametrize("shape", [(2, 1, 9, 8), (2, 1, 5, 6, 7)], ids=str)
def test_unified_focal_of_monai(shape: tuple[int, ...]) -> None:
    losses = pytest.importorskip("monai.losses")
    logits, target = case(shape)
    # It takes probabilities, though its documentation says logits, and divides its focal term by 2, the classes.
    theirs = losses.AsymmetricUnifiedFocalLoss(weight=0.5, gamma=0.5, delta=0.7)(logits.sigmoid(), target)
    ours = 0.75 * F.unified_focal_loss(logits, target, focal_weight=1 / 3, delta=0.7, smooth_nr=1e-7, smooth_dr=1e-7)
    agree(ours, theirs, logits)


@pytest.mark.parametrize("average", ["micro", "macro"])
def test_dice_of_kornia(average: Any) -> None:
    losses = pytest.importorskip("kornia.losses")
    logits, target = case((2, 3, 9, 8))
    weight = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    theirs = losses.dice_loss(logits, target[:, 0], average=average, weight=weight)
    ours = F.dice_loss(logits, target, average=average, weight=weight, empty="skip", smooth_nr=0, smooth_dr=1e-8)
    agree(ours, theirs, logits)


def test_tversky_of_kornia() -> None:
    losses = pytest.importorskip("kornia.losses")
    logits, target = case((2, 3, 9, 8))
    theirs = losses.tversky_loss(logits, target[:, 0], alpha=0.2, beta=0.9)
    ours = F.tversky_loss(logits, target, alpha=0.2, beta=0.9, empty="skip", smooth_nr=0, smooth_dr=1e-8)
    agree(ours, theirs, logits)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.3])
def test_focal_of_kornia(gamma: float, alpha: float | None) -> None:
    losses = pytest.importorskip("kornia.losses")
    # Its mean divides by the number of voxels and of classes.
    logits, target = case((2, 3, 9, 8))
    theirs = losses.focal_loss(logits, target[:, 0], alpha=alpha, gamma=gamma, reduction="sum")
    agree(F.focal_loss(logits, target, alpha=alpha, gamma=gamma, reduction="sum"), theirs, logits)
    logits, target = case((2, 1, 9, 8))
    theirs = losses.binary_focal_loss_with_logits(logits, target, alpha=alpha, gamma=gamma, reduction="mean")
    agree(F.focal_loss(logits, target, alpha=alpha, gamma=gamma), theirs, logits)


def test_lovasz_of_kornia() -> None:
    losses = pytest.importorskip("kornia.losses")
    logits, target = case((2, 3, 9, 8))
    agree(F.lovasz_loss(logits, target), losses.lovasz_softmax_loss(logits, target[:, 0]), logits)
    binary, labels = case((2, 1, 9, 8))
    agree(F.lovasz_loss(binary, labels), losses.lovasz_hinge_loss(binary, labels[:, 0].long()), binary)
