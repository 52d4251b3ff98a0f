"""Region losses on examples small enough to work out on paper."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from multilevel_loss import functional as F
from multilevel_loss import signed_distance_map
from multilevel_loss.losses.region.focal_tversky import finite_slope_power
from multilevel_loss.losses.region.lovasz import _from_greatest

# Four voxels, the first two predicted, the first alone true: TP = 1, FP = 1, FN = 0, TN = 2.
LOGITS = torch.tensor([[[40.0, 40.0, -40.0, -40.0]]])
TARGET = torch.tensor([[1, 0, 0, 0]])
LOG2 = math.log(2)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("dice_loss", {}, 1 / 3),
        ("iou_loss", {}, 1 / 2),
        ("tversky_loss", {}, 0.3 / 1.3),
        ("tversky_loss", {"alpha": 2.0, "beta": 0.0}, 2 / 3),
        ("focal_tversky_loss", {}, (0.3 / 1.3) ** 0.75),
        ("focal_tversky_loss", {"gamma": 0.5}, (0.3 / 1.3) ** 2),
        ("asymmetric_similarity_loss", {}, 1 / 4.25),
        ("asymmetric_similarity_loss", {"beta": 1.0}, 1 / 3),
        ("log_cosh_dice_loss", {}, math.log(math.cosh(1 / 3))),
        ("matthews_correlation_loss", {}, 1 - 2 / math.sqrt(2 * 1 * 3 * 2)),
        ("generalized_dice_loss", {}, 1 / 3),
        ("penalty_loss", {}, 1 - (2 / 3) / (1 + 2.5 / 3)),
        ("penalty_loss", {"k": 0.0}, 1 / 3),
        ("lovasz_loss", {}, 41 / 2),  # the hinge of the one wrong voxel, and the IoU loss of ½
        ("cross_entropy_loss", {}, 40 / 4),
        ("cross_entropy_loss", {"balance": True}, (0 + 40 / 3) / 2),
        ("focal_loss", {}, 40 / 4),
        ("focal_loss", {"alpha": 0.25}, 0.75 * 40 / 4),
        ("topk_loss", {"k": 50.0}, 40 / 2),
        ("topk_loss", {"threshold": 0.5}, 40.0),
        ("dpce_loss", {}, (1 + 2 / 3) * 40 / 4),  # the wrong voxel is 1 of at most 3 from the contour
        ("dice_ce_loss", {"dice_weight": 3.0, "ce_weight": 0.1}, 3 / 3 + 1.0),
        ("dice_focal_loss", {}, 1 / 3 + 0.5 * 40 / 4),
        # CE: the background is sure and wrong; T of the structure 1 / 1.4, of the background 2 / (2 + 0.6).
        ("unified_focal_loss", {}, 0.5 * (0.4 * 40 / 4) + 0.5 * (math.sqrt(0.4 / 1.4) + 0.6 / 2.6) / 2),
    ],
)  # fmt: skip
def test_four_voxels(name: str, options: dict[str, Any], expected: float) -> None:
    assert getattr(F, name)(LOGITS, TARGET, **options).item() == pytest.approx(expected, rel=1e-5)


def test_two_classes_are_one_against_its_background() -> None:
    # The logits of a softmax of two classes, half on either side.
    both = torch.cat([-LOGITS / 2, LOGITS / 2], 1)
    for name in ("cross_entropy_loss", "focal_loss", "topk_loss", "unified_focal_loss"):
        torch.testing.assert_close(getattr(F, name)(both, TARGET), getattr(F, name)(LOGITS, TARGET))
    # Background: TP = 2, FP = 0, FN = 1, volume 3; the structure has volume 1.
    score = 2 * (1 + 2 / 9) / ((2 + 1) + (2 + 3) / 9)
    assert F.generalized_dice_loss(both, TARGET).item() == pytest.approx(1 - score, rel=1e-5)
    assert F.iou_loss(both, TARGET, reduction="none").tolist() == [pytest.approx([1 / 3, 1 / 2], rel=1e-5)]


def test_generalized_dice_gives_an_absent_class_no_weight() -> None:
    logits, target = torch.randn(2, 3, 9), torch.randint(2, (2, 9))
    logits[:, 2] = -100.0
    torch.testing.assert_close(F.generalized_dice_loss(logits, target), F.generalized_dice_loss(logits[:, :2], target))
    # The volumes of a scan may be large: what matters is their ratio.
    large = F.generalized_dice_loss(logits[:, :2].repeat(1, 1, 50_000), target.repeat(1, 50_000))
    torch.testing.assert_close(large, F.generalized_dice_loss(logits[:, :2], target), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gamma", [4 / 3, 3.0])
def test_focal_tversky_has_a_slope_where_it_is_right(gamma: float) -> None:
    logits = (30 * (2 * TARGET.unsqueeze(1) - 1)).float().requires_grad_()
    (slope,) = torch.autograd.grad(F.focal_tversky_loss(logits, TARGET, gamma=gamma), logits)
    assert slope.isfinite().all()
    # Above 1e-6 it is the power; the join is continuous.
    losses = torch.tensor([0.0, 1e-6, 2e-6, 0.3, 1.0])
    torch.testing.assert_close(finite_slope_power(losses, 1 / gamma), losses ** (1 / gamma))


def test_correlation_of_a_prediction_that_fills_a_large_image() -> None:
    logits = torch.full((1, 1, 884_736), 40.0)
    for volume in (1970, 3716, 3813, 7208):  # of these rounding makes a covariance
        target = (torch.arange(884_736) < volume).unsqueeze(0)
        assert F.matthews_correlation_loss(logits, target).item() == pytest.approx(1, abs=1e-3)
    one = torch.zeros(1, 10**6, dtype=torch.uint8)
    one[:, 5] = 1
    right = 40 * (2 * one.unsqueeze(1).float() - 1)
    assert F.matthews_correlation_loss(right, one).item() == pytest.approx(0, abs=1e-5)
    # Without any truth, the mean error: a quarter of the voxels.
    assert F.matthews_correlation_loss(LOGITS, torch.zeros(1, 4, dtype=torch.long)).item() == pytest.approx(1 / 2)


@pytest.mark.parametrize("weight", [None, [0.5, 1.0, 4.0]])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_cross_entropy_is_that_of_torch(weight: list[float] | None, reduction: Any) -> None:
    logits, target = 3 * torch.randn(2, 3, 8, 7, requires_grad=True), torch.randint(3, (2, 8, 7))
    target[0, :3] = -100
    theirs = torch.nn.functional.cross_entropy(
        logits, target, weight=None if weight is None else torch.tensor(weight), reduction=reduction
    )
    ours = F.cross_entropy_loss(logits, target, weight=weight, reduction=reduction, ignore_index=-100)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)))


def test_cross_entropy_of_sure_errors_is_exact() -> None:
    logits = torch.tensor([[[150.0, 0.0, -3.0, 20.0]], [[0.0, 150.0, 3.0, 0.0]]]).transpose(0, 1)
    target = torch.tensor([[1, 0, 0, 0]])
    expected = [150.0, 150.0, 6 + math.log1p(math.exp(-6)), math.log1p(math.exp(-20))]
    each = F.cross_entropy_loss(logits, target, reduction="none").sum(1)
    torch.testing.assert_close(each, torch.tensor([expected]))
    total = F.cross_entropy_loss(logits, target, reduction="sum")
    assert total.item() == pytest.approx(sum(expected), rel=1e-6)
    binary = torch.tensor([[[150.0, -150.0, -40.0]]])
    assert F.cross_entropy_loss(binary, torch.tensor([[0, 1, 1]])).item() == pytest.approx(340 / 3)


def test_voxel_weights_and_balance_by_hand() -> None:
    logits, target = torch.tensor([[[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]]]), torch.tensor([[0, 1, 1]])
    off, on = math.log1p(math.exp(2)), math.log1p(math.exp(-2))
    weighted = F.cross_entropy_loss(logits, target, voxel_weight=torch.tensor([[3.0, 1.0, 0.0]]))
    assert weighted.item() == pytest.approx((3 * off + on) / 4)
    weights = torch.tensor([[3.0, 1.0, 0.0]]).unsqueeze(1)
    each = F.cross_entropy_loss(logits, target, voxel_weight=weights, weight=[1.0, 2.0], reduction="none")
    torch.testing.assert_close(each, torch.tensor([[[3 * off, 0, 0], [0, 2 * on, 0]]]))
    assert F.cross_entropy_loss(logits, target, balance=True).item() == pytest.approx((off + on) / 2)
    each = F.cross_entropy_loss(logits, target, balance=True, reduction="none")
    torch.testing.assert_close(each, torch.tensor([[[off, 0, 0], [0, on / 2, on / 2]]]))
    nothing = F.cross_entropy_loss(logits, target, voxel_weight=torch.zeros(1, 3))
    assert nothing.item() == 0


def test_unet_weights_by_hand() -> None:
    # Two objects, three voxels apart, and one class more than the example of the docstring has.
    target = torch.tensor([[1, 0, 0, 0, 2, 2]], dtype=torch.uint8)
    near = [10 * math.exp(-(d**2) / 50) for d in (4, 4, 4, 4, 4, 5)]
    balance = [2.0, 2 / 3, 2 / 3, 2 / 3, 1.0, 1.0]
    weights = F.unet_weight_map(target)
    torch.testing.assert_close(weights, torch.tensor([[near]]) + torch.tensor([[balance]]))
    # In mm, and with an ignored voxel, which weighs nothing.
    millimetres = F.unet_weight_map(target, spacing=2.0, sigma=10.0)
    torch.testing.assert_close(millimetres, weights)
    ignored = F.unet_weight_map(torch.tensor([[1, 0, 9, 0]]), ignore_index=9)
    torch.testing.assert_close(ignored, torch.tensor([[[1.5, 0.75, 0.0, 0.75]]]))
    # Components of one class are objects of their own; faces join, corners do not.
    corners = torch.tensor([[[1, 0], [0, 1]]])
    expected = 1 + 10 * math.exp(-1 / (2 * 0.25)) * torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    touching = F.unet_weight_map(corners, sigma=0.5) - expected
    distance = torch.tensor([[math.sqrt(2), 2], [2, math.sqrt(2)]])
    torch.testing.assert_close(touching, 10 * torch.exp(-(distance**2) / 0.5).view(1, 1, 2, 2))
    assert F.unet_weight_map(torch.zeros(2, 3, dtype=torch.bool)).tolist() == [[[1.0] * 3]] * 2
    with pytest.raises(TypeError, match=r"expected `target` to be a label map of integers, got torch.float32"):
        F.unet_weight_map(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"expected `target` to be a label map of shape .* got shape \(3,\)"):
        F.unet_weight_map(torch.zeros(3, dtype=torch.long))


def test_topk_takes_the_hardest_of_each_sample_or_of_the_batch() -> None:
    logits, target = torch.tensor([[[0.0, 1, 2, 3]], [[4.0, 5, 6, 7]]]), torch.zeros(2, 4, dtype=torch.long)
    loss = torch.nn.functional.softplus(logits)
    torch.testing.assert_close(F.topk_loss(logits, target, k=25), (loss[0, 0, 3] + loss[1, 0, 3]) / 2)
    torch.testing.assert_close(F.topk_loss(logits, target, k=25, batch=True), loss[1, 0, 2:].mean())
    torch.testing.assert_close(F.topk_loss(logits, target, k=0.1), (loss[0, 0, 3] + loss[1, 0, 3]) / 2)
    # Voxels that do not count are not chosen, nor counted in the percentage.
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(F.topk_loss(logits, target, k=50, mask=mask), loss[0, 0, 1])
    # Weights do not choose, but they weigh.
    both = torch.cat([torch.zeros_like(logits), logits], 1)
    labels = torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1]])
    each = torch.nn.functional.cross_entropy(both, labels, reduction="none")
    chosen = [(0, 0), (0, 2), (1, 0), (1, 1)]
    expected = sum(each[place] for place in chosen) / 4
    torch.testing.assert_close(F.topk_loss(both, labels, k=50, weight=[2.0, 1.0]), expected)


def test_dpce_takes_a_map_of_any_scale() -> None:
    logits, target = torch.randn(2, 3, 9, 8), torch.zeros(2, 9, 8, dtype=torch.long)
    target[:, 1:8, 1:5], target[:, 3:7, 6:] = 1, 2
    expected = F.dpce_loss(logits, target)
    for scale in (1.0, 7.5):
        given = scale * signed_distance_map(target, num_classes=3)
        torch.testing.assert_close(F.dpce_loss(logits, target, distance_map=given), expected)
    assert not torch.isclose(F.dpce_loss(logits, target, spacing=(5.0, 1.0)), expected)
    # Without a contour it is cross entropy.
    empty = torch.zeros_like(target)
    torch.testing.assert_close(F.dpce_loss(logits, empty), F.cross_entropy_loss(logits, empty))


@pytest.mark.parametrize("shape", [(2, 3, 1000), (2, 1, 7), (1, 2, 0)])
def test_errors_are_ordered_from_the_greatest_and_equal_ones_as_they_come(shape: tuple[int, ...]) -> None:
    errors = torch.rand(shape)
    errors[..., ::3] = 0
    errors[..., 1::7] = 2.0**-140  # no normal number
    errors[..., 2:4] = torch.inf
    assert _from_greatest(errors).equal(errors.sort(dim=-1, descending=True, stable=True).indices)


def test_lovasz_of_a_hard_prediction_is_the_iou_loss() -> None:
    predicted, target = torch.randint(3, (2, 40)), torch.randint(3, (2, 40))
    logits = 200 * torch.nn.functional.one_hot(predicted, 3).movedim(-1, 1).float()
    torch.testing.assert_close(F.lovasz_loss(logits, target), F.iou_loss(logits, target), rtol=1e-5, atol=1e-6)


def test_skeletons_by_hand() -> None:
    bar = torch.zeros(1, 1, 7, 11)
    bar[..., 1:6, 1:10] = 1
    line = torch.zeros(1, 1, 7, 11)
    line[..., 3, 3:8] = 1
    skeleton = F.soft_skeleton(bar, iterations=2)
    torch.testing.assert_close(skeleton[..., 3, 3:8], line[..., 3, 3:8])
    assert skeleton.sum() < bar.sum() / 3
    assert not F.soft_skeleton(bar, iterations=1)[..., 3, 5]  # too wide for a single erosion
    torch.testing.assert_close(F.soft_skeleton(skeleton, iterations=3), skeleton)
    # A bridge of one voxel decides the centreline, hardly the overlap.
    broken = bar.clone()
    broken[..., 5] = 0
    logits = 80 * broken - 40
    labels = bar[:, 0].long()
    assert F.cl_dice_loss(logits, labels) > 0.05
    with pytest.raises(ValueError, match=r"expected `probability` to have shape .* got shape \(3, 3\)"):
        F.soft_skeleton(torch.zeros(3, 3))


def test_wasserstein_dice_of_far_classes_counts_each_error_whole() -> None:
    logits = 40 * torch.eye(3)[:, [0, 1, 2, 2, 0]].unsqueeze(0)
    target = torch.tensor([[0, 1, 1, 2, 2]])
    apart = [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    # True: 2 of the structures' voxels; wrong: 2.
    assert F.generalized_wasserstein_dice_loss(logits, target, distances=apart).item() == pytest.approx(2 / 6, rel=1e-5)
    alike = torch.tensor([[0, 4, 4], [4, 0, 1], [4, 1, 0]])
    # One error costs ¼, the other 1; 2 + ¾ are true.
    expected = 1 - 5.5 / (5.5 + 1.25)
    assert F.generalized_wasserstein_dice_loss(logits, target, distances=alike).item() == pytest.approx(
        expected, rel=1e-5
    )
    with pytest.raises(ValueError, match="expected `input` to have at least 2 channels"):
        F.generalized_wasserstein_dice_loss(logits[:, :1], target, distances=apart)
