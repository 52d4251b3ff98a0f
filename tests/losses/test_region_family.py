"""The laws every region loss, and every sum of region losses, keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import region_oracles as oracles
import torch
from torch import Tensor

import multilevel_loss as mll
from multilevel_loss import functional as F

APART = [[0, 2, 2], [2, 0, 1], [2, 1, 0]]
# The module of each loss, and the options it is tested with.
LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "dice_loss": ("DiceLoss", {}),
    "iou_loss": ("IoULoss", {}),
    "tversky_loss": ("TverskyLoss", {}),
    "focal_tversky_loss": ("FocalTverskyLoss", {}),
    "asymmetric_similarity_loss": ("AsymmetricSimilarityLoss", {}),
    "log_cosh_dice_loss": ("LogCoshDiceLoss", {}),
    "matthews_correlation_loss": ("MatthewsCorrelationLoss", {}),
    "generalized_dice_loss": ("GeneralizedDiceLoss", {}),
    "penalty_loss": ("PenaltyLoss", {}),
    "lovasz_loss": ("LovaszLoss", {}),
    "cl_dice_loss": ("ClDiceLoss", {}),
    "generalized_wasserstein_dice_loss": ("GeneralizedWassersteinDiceLoss", {"distances": APART}),
    "cross_entropy_loss": ("CrossEntropyLoss", {}),
    "focal_loss": ("FocalLoss", {}),
    "topk_loss": ("TopKLoss", {}),
    "dpce_loss": ("DPCELoss", {}),
    "dice_ce_loss": ("DiceCELoss", {}),
    "dice_focal_loss": ("DiceFocalLoss", {}),
    "unified_focal_loss": ("UnifiedFocalLoss", {}),
}
# Options that take other paths through a loss than those above.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "dice_loss": [{"squared": True}, {"average": "micro", "batch": True}, {"empty": "skip"}],
    "focal_tversky_loss": [{"gamma": 0.5}],
    "lovasz_loss": [{"batch": True, "empty": "skip"}],
    "cross_entropy_loss": [{"balance": True}],
    "focal_loss": [{"gamma": 0.5, "alpha": 0.25}],
    "topk_loss": [{"threshold": 0.7}, {"batch": True}],
    "dice_focal_loss": [{"gamma": 0.3}],
    "unified_focal_loss": [{"gamma": 0.0}],
}
# The value of every class stands alone, (B, C), and the mean is theirs.
OF_COUNTS = list(LOSSES)[:7]
OF_CLASSES = [*OF_COUNTS, "lovasz_loss", "cl_dice_loss"]
OF_VOXELS = ["cross_entropy_loss", "focal_loss", "topk_loss", "dpce_loss"]
SUMS = ["dice_ce_loss", "dice_focal_loss", "unified_focal_loss"]
MULTICLASS_ONLY = {"generalized_wasserstein_dice_loss"}
CASES = [(name, {}) for name in LOSSES] + [
    (name, options) for name, variants in VARIANTS.items() for options in variants
]
every_loss = pytest.mark.parametrize("name", LOSSES)
every_case = pytest.mark.parametrize(
    ("name", "options"), CASES, ids=lambda value: str(value).strip("{}").replace("'", "")
)


def loss_of(name: str, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
    function: Callable[..., Tensor] = getattr(F, name)
    return function(logits, target, **(LOSSES[name][1] | options))


def channels_of(name: str) -> tuple[int, ...]:
    return (3,) if name in MULTICLASS_ONLY else (1, 3)


def labels_of(batch: int, channels: int, grid: tuple[int, ...]) -> Tensor:
    return torch.randint(max(channels, 2), (batch, *grid))


def one_hot(labels: Tensor, channels: int) -> Tensor:
    if channels == 1:
        return labels.unsqueeze(1).float()
    return torch.nn.functional.one_hot(labels.long(), channels).movedim(-1, 1).float()


def degenerate(kind: str, grid: tuple[int, ...]) -> Tensor:
    labels = torch.zeros(2, *grid, dtype=torch.long)
    if kind == "full":
        labels += 1
    elif kind == "one voxel":
        labels[(slice(None), *(side // 2 for side in grid))] = 1
    elif kind == "touching the border":
        labels[:, :2, :2] = 1
    return labels


@every_case
@pytest.mark.parametrize("grid", [(11, 9), (7, 6, 5)], ids=["2-D", "3-D"])
def test_finite_value_and_gradient_whatever_is_absent(
    name: str, options: dict[str, Any], grid: tuple[int, ...]
) -> None:
    for channels in channels_of(name):
        for kind in ("empty", "full", "one voxel", "touching the border"):
            target = degenerate(kind, grid)
            right = 100 * (2 * one_hot(target, channels) - 1)
            for logits in (
                torch.zeros_like(right),
                torch.randn_like(right) * 3,
                right,
                -right,
                right.abs(),
                -right.abs(),
            ):
                logits.requires_grad_()
                loss = loss_of(name, logits, target, **options)
                (gradient,) = torch.autograd.grad(loss, logits)
                assert loss.isfinite(), (kind, channels)
                assert gradient.isfinite().all(), (kind, channels)


@every_loss
@pytest.mark.parametrize("kind", ["empty", "full", "one voxel", "touching the border"])
def test_right_is_no_loss_and_wrong_is_more(name: str, kind: str) -> None:
    for channels in channels_of(name):
        target = degenerate(kind, (7, 6))
        right = 40 * (2 * one_hot(target, channels) - 1)
        assert loss_of(name, right, target).item() == pytest.approx(0, abs=1e-4)
        if kind == "empty" and name in ("generalized_dice_loss", "penalty_loss") and channels == 1:
            continue  # an absent class has no weight
        if kind in ("empty", "full") and name == "cl_dice_loss":
            continue  # what fills the image has no centreline
        assert loss_of(name, -right, target).item() > 0.3


@every_case
@pytest.mark.parametrize(("channels", "grid"), [(1, (5, 4)), (3, (4, 5)), (1, (3, 4, 3)), (3, (7,))])
def test_gradient_is_that_of_the_value(
    name: str, options: dict[str, Any], channels: int, grid: tuple[int, ...]
) -> None:
    if channels not in channels_of(name):
        pytest.skip("one channel has no softmax")
    logits = (3 * torch.randn(2, channels, *grid, dtype=torch.float64)).requires_grad_()
    target = labels_of(2, channels, grid)
    mask = torch.rand(2, *grid) > 0.2
    assert torch.autograd.gradcheck(lambda x: loss_of(name, x, target, mask=mask, **options), logits, fast_mode=True)


@every_loss
def test_gradient_for_soft_targets_is_that_of_the_value(name: str) -> None:
    logits = (3 * torch.randn(2, 3, 4, 5, dtype=torch.float64)).requires_grad_()
    target = torch.rand(2, 3, 4, 5, dtype=torch.float64).softmax(1)
    assert torch.autograd.gradcheck(lambda x: loss_of(name, x, target), logits, fast_mode=True)


@every_case
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_precision_at_volume_scale(name: str, options: dict[str, Any], precision: torch.dtype) -> None:
    channels = 3 if name in MULTICLASS_ONLY else 2
    logits = torch.full((1, channels, 32, 64, 64), -80.0, dtype=precision)
    logits[:, 1, 12:24, 10:50] = 80.0
    logits.requires_grad_()
    target = torch.zeros(1, 32, 64, 64, dtype=torch.uint8)
    target[:, 10:20] = 1
    with torch.autocast("cpu", dtype=precision):
        loss = loss_of(name, logits, target, **options)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert gradient.dtype == precision
    assert gradient.isfinite().all()
    torch.testing.assert_close(loss, loss_of(name, logits.float(), target, **options))


@pytest.mark.parametrize(
    ("name", "options", "backend"),
    [(name, {}, "eager") for name in LOSSES]
    + [("focal_loss", {"gamma": 0.5}, "aot_eager"), ("topk_loss", {}, "aot_eager"), ("dice_ce_loss", {}, "aot_eager")],
)
def test_compiled_without_graph_breaks_it_is_the_same(name: str, options: dict[str, Any], backend: str) -> None:
    torch.compiler.reset()
    logits, target = torch.randn(2, 3, 8, 7, requires_grad=True), labels_of(2, 3, (8, 7))
    compiled = torch.compile(loss_of, fullgraph=True, backend=backend)
    results = [loss(name, logits, target, **options) for loss in (loss_of, compiled)]
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*(torch.autograd.grad(result, logits)[0] for result in results))


def test_compiled_gradients_are_finite_where_a_power_has_none() -> None:
    torch.compiler.reset()
    logits = torch.tensor([[[200.0, 0.0]], [[0.0, -200.0]]], requires_grad=True)
    for name, options in (("focal_loss", {"gamma": 0.5}), ("focal_tversky_loss", {})):
        loss = torch.compile(loss_of, backend="eager")(name, logits, torch.tensor([[1, 1], [0, 0]]), **options)
        assert torch.autograd.grad(loss, logits)[0].isfinite().all()


@every_loss
@pytest.mark.parametrize("grid", [(11, 9), (7, 6, 5)], ids=["2-D", "3-D"])
def test_order_of_samples_and_flips_change_nothing(name: str, grid: tuple[int, ...]) -> None:
    logits, target = 3 * torch.randn(3, 3, *grid), labels_of(3, 3, grid)
    expected = loss_of(name, logits, target)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(loss_of(name, logits[order], target[order]), expected)
    for axis in range(1, len(grid) + 1):
        torch.testing.assert_close(loss_of(name, logits.flip(-axis), target.flip(-axis)), expected)
    turned = loss_of(name, logits.transpose(-1, -2), target.transpose(-1, -2))  # not contiguous
    torch.testing.assert_close(turned, expected)
    if len(grid) == 2:
        torch.testing.assert_close(
            loss_of(name, logits.contiguous(memory_format=torch.channels_last), target), expected
        )


@every_case
def test_what_is_masked_does_not_matter(name: str, options: dict[str, Any]) -> None:
    for channels in channels_of(name):
        logits, target = 3 * torch.randn(2, channels, 8, 7), labels_of(2, channels, (8, 7))
        mask = torch.rand(2, 8, 7) > 0.3
        expected = loss_of(name, logits, target, mask=mask, **options)
        poisoned = logits.masked_fill(~mask.unsqueeze(1), torch.nan).requires_grad_()
        loss = loss_of(name, poisoned, target, mask=mask, **options)
        (gradient,) = torch.autograd.grad(loss, poisoned)
        torch.testing.assert_close(loss, expected)
        assert gradient.isfinite().all()
        assert not gradient[(~mask).unsqueeze(1).expand_as(gradient)].any()
        nothing = loss_of(name, logits, target, mask=torch.zeros_like(mask), **options)
        assert nothing == 0


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("cl_dice_loss", "dpce_loss")])
def test_masking_is_removing(name: str) -> None:
    for channels in channels_of(name):
        logits, target = 3 * torch.randn(2, channels, 40), labels_of(2, channels, (40,))
        mask = torch.ones(2, 40, dtype=torch.bool)
        mask[:, 25:] = False
        torch.testing.assert_close(
            loss_of(name, logits, target, mask=mask), loss_of(name, logits[..., :25], target[..., :25])
        )


@every_loss
def test_ignored_voxels_belong_to_no_class_and_are_masked(name: str) -> None:
    for channels in channels_of(name):
        logits, target = 3 * torch.randn(2, channels, 8, 7), labels_of(2, channels, (8, 7))
        known = torch.rand(2, 8, 7) > 0.3
        labels = target.masked_fill(~known, 255).to(torch.uint8)
        memberships = one_hot(target, channels).masked_fill(~known.unsqueeze(1), 0)
        torch.testing.assert_close(
            loss_of(name, logits, labels, ignore_index=255), loss_of(name, logits, memberships, mask=known)
        )


@every_loss
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64])
def test_label_map_is_its_one_hot_form(name: str, dtype: torch.dtype) -> None:
    for channels in channels_of(name):
        logits, target = 3 * torch.randn(2, channels, 8, 7), labels_of(2, channels, (8, 7))
        expected = loss_of(name, logits, one_hot(target, channels))
        torch.testing.assert_close(loss_of(name, logits, target.to(dtype)), expected)
        torch.testing.assert_close(loss_of(name, logits, target.to(dtype).unsqueeze(1)), expected)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in MULTICLASS_ONLY])
def test_multilabel_channels_are_binary_losses(name: str) -> None:
    logits, target = 3 * torch.randn(2, 3, 8, 7), (torch.rand(2, 3, 8, 7) > 0.6).float()
    if name in ("generalized_dice_loss", "penalty_loss", "topk_loss"):
        pytest.skip("takes the channels together")
    together = loss_of(name, logits, target, mode="multilabel")
    alone = [loss_of(name, logits[:, [c]], target[:, [c]]) for c in range(3)]
    torch.testing.assert_close(together, torch.stack(alone).mean())


@pytest.mark.parametrize("name", OF_CLASSES)
def test_classes_are_weighed_selected_and_masked_alike(name: str) -> None:
    logits, target = 3 * torch.randn(2, 3, 8, 7), labels_of(2, 3, (8, 7))
    each = loss_of(name, logits, target, reduction="none")
    assert each.shape == (2, 3)
    torch.testing.assert_close(loss_of(name, logits, target), each.mean())
    torch.testing.assert_close(loss_of(name, logits, target, reduction="sum"), each.sum())
    weight = torch.tensor([1.0, 0.0, 3.0])
    weighted = loss_of(name, logits, target, weight=weight)
    torch.testing.assert_close(weighted, (each * weight).sum() / (2 * weight.sum()))
    torch.testing.assert_close(loss_of(name, logits, target, include_background=False), each[:, 1:].mean())
    class_mask = torch.tensor([[1, 0, 1], [0, 1, 1]])
    torch.testing.assert_close(loss_of(name, logits, target, class_mask=class_mask), (each * class_mask).sum() / 4)
    absent = target.clamp_max(1)
    present = loss_of(name, logits, absent, reduction="none")[:, :2].mean()
    torch.testing.assert_close(loss_of(name, logits, absent, empty="skip"), present)


@pytest.mark.parametrize("name", OF_COUNTS)
def test_samples_and_classes_are_counted_together(name: str) -> None:
    logits, target = 3 * torch.randn(2, 3, 8, 7), (torch.rand(2, 3, 8, 7) > 0.6).float()
    options = {"mode": "multilabel"}
    batch = loss_of(name, logits, target, batch=True, reduction="none", **options)
    longer = [tensor.transpose(0, 1).reshape(1, 3, 16, 7) for tensor in (logits, target)]
    torch.testing.assert_close(batch, loss_of(name, *longer, reduction="none", **options))
    micro = loss_of(name, logits, target, average="micro", reduction="none", **options)
    longer = [tensor.reshape(2, 1, 24, 7) for tensor in (logits, target)]
    torch.testing.assert_close(micro, loss_of(name, *longer, reduction="none"))


@pytest.mark.parametrize(
    "name",
    [*OF_COUNTS, "generalized_dice_loss", "penalty_loss", "generalized_wasserstein_dice_loss", "lovasz_loss"],
)
def test_a_batch_is_one_long_sample(name: str) -> None:
    logits, target = 3 * torch.randn(2, 3, 8, 7), labels_of(2, 3, (8, 7))
    longer = loss_of(name, logits.transpose(0, 1).reshape(1, 3, 16, 7), target.reshape(1, 16, 7))
    torch.testing.assert_close(loss_of(name, logits, target, batch=True), longer)
    weight = [1.0, 2.0, 7.0]
    longer = loss_of(name, logits.transpose(0, 1).reshape(1, 3, 16, 7), target.reshape(1, 16, 7), weight=weight)
    torch.testing.assert_close(loss_of(name, logits, target, batch=True, weight=weight), longer)
    half = torch.tensor([[1, 1, 1], [0, 0, 0]])  # what is not labelled does not count in the batch either
    torch.testing.assert_close(
        loss_of(name, logits, target, batch=True, class_mask=half), loss_of(name, logits[:1], target[:1])
    )
    torch.testing.assert_close(loss_of(name, logits, target, class_mask=half), loss_of(name, logits[:1], target[:1]))


@every_case
def test_scale_of_the_weights_does_not_matter(name: str, options: dict[str, Any]) -> None:
    logits, target = 3 * torch.randn(2, 3, 8, 7), labels_of(2, 3, (8, 7))
    expected = loss_of(name, logits, target, weight=[0.5, 1.0, 4.0], **options)
    for weight in ([5.0, 10.0, 40.0], torch.tensor([1, 2, 8])):
        torch.testing.assert_close(loss_of(name, logits, target, weight=weight, **options), expected)
    assert not torch.isclose(loss_of(name, logits, target, **options), expected)
    without_background = loss_of(name, logits, target, weight=[0, 1, 1], **options)
    labelled = loss_of(name, logits, target, class_mask=torch.tensor([[0, 1, 1]] * 2), **options)
    torch.testing.assert_close(labelled, without_background)
    if name not in OF_VOXELS + SUMS:
        left_out = loss_of(name, logits, target, include_background=False, **options)
        torch.testing.assert_close(left_out, without_background)


@pytest.mark.parametrize("name", OF_VOXELS)
def test_a_softmax_is_taught_on_the_background_and_several_sigmoids_are_not(name: str) -> None:
    logits, target = 3 * torch.randn(2, 3, 8, 7), labels_of(2, 3, (8, 7))
    torch.testing.assert_close(loss_of(name, logits, target, include_background=False), loss_of(name, logits, target))
    several, options = one_hot(target, 3), {"mode": "multilabel"}
    torch.testing.assert_close(
        loss_of(name, logits, several, include_background=False, **options),
        loss_of(name, logits[:, 1:], several[:, 1:], **options),
    )


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("dice_ce_loss", {"dice_loss": 1.0, "cross_entropy_loss": 1.0}),
        ("dice_focal_loss", {"dice_loss": 1.0, "focal_loss": 0.5}),
    ],
)
def test_sums_leave_the_background_out_of_each_term_as_the_term_does(name: str, terms: dict[str, float]) -> None:
    logits, target = 3 * torch.randn(2, 3, 8, 7), labels_of(2, 3, (8, 7))
    for options in ({}, {"weight": [1.0, 2.0, 7.0]}, {"mode": "multilabel"}):
        truth = one_hot(target, 3) if "mode" in options else target
        shared = options | {"include_background": False}
        expected = sum(factor * loss_of(term, logits, truth, **shared) for term, factor in terms.items())
        torch.testing.assert_close(loss_of(name, logits, truth, **shared), expected)


@pytest.mark.parametrize("name", SUMS)
def test_a_false_voxel_costs_more_though_the_background_is_left_out(name: str) -> None:
    logits = torch.tensor([[[6.0, 6, 6, 6, 6, 0], [0, 0, 0, 0, 0, 6]]], requires_grad=True)
    loss = loss_of(name, logits, torch.tensor([[0, 0, 0, 0, 0, 1]]), include_background=False)
    (gradient,) = torch.autograd.grad(loss, logits)
    dice = F.dice_loss(logits, torch.tensor([[0, 0, 0, 0, 0, 1]]), include_background=False)
    (of_dice,) = torch.autograd.grad(dice, logits)
    assert (gradient[0, 1, :5] > (of_dice / 2)[0, 1, :5]).all()


@pytest.mark.parametrize("name", OF_VOXELS)
def test_voxels_reduce_to_the_mean(name: str) -> None:
    for channels, mode in ((1, None), (3, None), (3, "multilabel")):
        logits, target = 3 * torch.randn(2, channels, 8, 7), one_hot(labels_of(2, channels, (8, 7)), channels)
        mask, weight = torch.rand(2, 8, 7) > 0.2, torch.rand(channels)
        options = {"mode": mode, "mask": mask, "weight": weight, **({"k": 100} if name == "topk_loss" else {})}
        each = loss_of(name, logits, target, reduction="none", **options)
        assert each.shape == logits.shape
        count = mask.unsqueeze(1) * weight.view(-1, 1, 1) * (target if mode is None and channels > 1 else 1)
        torch.testing.assert_close(loss_of(name, logits, target, reduction="sum", **options), each.sum())
        mean = each.sum() / count.expand_as(each).sum()
        torch.testing.assert_close(loss_of(name, logits, target, **options), mean)


@every_loss
def test_module_is_the_function(name: str) -> None:
    logits, target = torch.randn(2, 3, 8, 7), labels_of(2, 3, (8, 7))
    module_name, options = LOSSES[name]
    assert getattr(mll, module_name)(**options)(logits, target) == loss_of(name, logits, target)
    assert name in F.__all__
    assert module_name in mll.__all__


def sample_oracle(name: str, x: np.ndarray, v: np.ndarray, softmax: bool) -> float:
    """Return the mean loss of one sample."""
    p, bare = oracles.activate(x, softmax), name.removesuffix("_loss")
    if name in ("topk_loss", "dpce_loss", "unified_focal_loss"):
        return getattr(oracles, bare)(x, v, softmax)
    if name in ("generalized_dice_loss", "penalty_loss"):
        return getattr(oracles, bare)(p, v)
    if name == "generalized_wasserstein_dice_loss":
        return oracles.generalized_wasserstein_dice(p, v, np.array(APART) / 2)
    if name == "lovasz_loss":
        errors = np.abs(v - p) if softmax else np.maximum(1 - x * (2 * v - 1), 0)
        return float(np.mean([oracles.lovasz(e, u) for e, u in zip(errors, v, strict=True)]))
    if name in ("cross_entropy_loss", "focal_loss"):
        loss, count = oracles.cross_entropies(x, v, softmax, 2.0 if name == "focal_loss" else 0.0)
        return float(loss.sum() / count.sum())
    if name == "dice_ce_loss":
        return sample_oracle("dice_loss", x, v, softmax) + sample_oracle("cross_entropy_loss", x, v, softmax)
    if name == "dice_focal_loss":
        return sample_oracle("dice_loss", x, v, softmax) + 0.5 * sample_oracle("focal_loss", x, v, softmax)
    return float(np.mean([getattr(oracles, bare)(q, u) for q, u in zip(p, v, strict=True)]))


@every_loss
@pytest.mark.parametrize("grid", [(13,), (11, 8), (7, 3, 5)])
def test_agrees_with_a_naive_truth(name: str, grid: tuple[int, ...]) -> None:
    for channels in channels_of(name):
        logits, target = 3 * torch.randn(2, channels, *grid, dtype=torch.float64), labels_of(2, channels, grid)
        v = one_hot(target, channels).double().numpy()
        expected = np.mean([sample_oracle(name, logits[n].numpy(), v[n], channels > 1) for n in range(2)])
        assert loss_of(name, logits, target).item() == pytest.approx(expected, rel=1e-7)


COUNT_ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "average": ({"average": "weighted"}, "expected `average` to be one of 'macro', 'micro', got 'weighted'"),
    "empty": ({"empty": "nan"}, "expected `empty` to be one of 'score', 'skip', got 'nan'"),
}


@every_loss
def test_every_loss_checks_what_it_is_given(name: str) -> None:
    logits, target = torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.long)
    for options, message in [
        (
            {"weight": [1.0]},
            "expected `weight` to have one value a class, background included, shape (3,), got shape (1,)",
        ),
        ({"class_mask": torch.ones(3)}, "expected `class_mask` to have shape (B, C) = (2, 3), got (3,)"),
        ({"mask": torch.ones(4)}, "expected `mask` to have one value a voxel, shape (2, 4) or (2, 1, 4), got (4,)"),
        *(
            [({"reduction": "max"}, "expected `reduction` to be one of 'mean', 'sum', 'none', got 'max'")]
            * (name not in SUMS)
        ),
        *(COUNT_ERRORS.values() if name in OF_COUNTS + SUMS[:2] else []),
    ]:
        with pytest.raises(ValueError, match="expected") as caught:
            loss_of(name, logits, target, **options)
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tversky_loss", {"alpha": -0.1}, "expected `alpha` to be at least 0, got -0.1"),
        ("tversky_loss", {"alpha": 0, "beta": 0}, "expected `alpha + beta` to be greater than 0, got 0"),
        ("focal_tversky_loss", {"gamma": 0}, "expected `gamma` to be greater than 0, got 0"),
        ("asymmetric_similarity_loss", {"beta": 0.0}, "expected `beta` to be greater than 0, got 0.0"),
        ("penalty_loss", {"k": -1}, "expected `k` to be at least 0, got -1"),
        ("focal_loss", {"gamma": -1.0}, "expected `gamma` to be at least 0, got -1.0"),
        ("focal_loss", {"alpha": 1.5}, "expected `alpha` to be from 0 to 1, got 1.5"),
        ("dice_focal_loss", {"alpha": -0.5}, "expected `alpha` to be from 0 to 1, got -0.5"),
        ("dice_focal_loss", {"focal_weight": -0.5}, "expected `focal_weight` to be at least 0, got -0.5"),
        ("dice_ce_loss", {"ce_weight": float("inf")}, "expected `ce_weight` to be at least 0, got inf"),
        ("topk_loss", {"k": 0}, "expected `k` to be greater than 0, got 0"),
        ("topk_loss", {"k": 101}, "expected `k` to be a percentage, at most 100, got 101"),
        ("topk_loss", {"threshold": 0.0}, "expected `threshold` to be a probability above 0, got 0.0"),
        ("cl_dice_loss", {"iterations": -1}, "expected `iterations` to be at least 0, got -1"),
        ("unified_focal_loss", {"gamma": 1.0}, "expected `gamma` to be from 0 to 1, exclusive, got 1.0"),
        ("unified_focal_loss", {"delta": 1.1}, "expected `delta` to be from 0 to 1, got 1.1"),
        (
            "cross_entropy_loss",
            {"voxel_weight": torch.ones(4)},
            "expected `voxel_weight` to have one value a voxel, shape (2, 4) or (2, 1, 4), got (4,)",
        ),
        (
            "cross_entropy_loss",
            {"voxel_weight": -torch.ones(2, 4)},
            "expected `voxel_weight` to be at least 0, got -1",
        ),
        (
            "generalized_wasserstein_dice_loss",
            {"distances": [[0, 1], [1, 0]]},
            "expected `distances` to be (3, 3), a row a class, got shape (2, 2)",
        ),
        (
            "generalized_wasserstein_dice_loss",
            {"distances": [[0, 1, 1], [1, 0, 2], [1, 2, 0]]},
            "expected `distances` to be (3, 3), a row a class, symmetric, 0 on the diagonal, at least 0 elsewhere and "
            "greatest from every class to class 0, the background, "
            "got [[0.0, 1.0, 1.0], [1.0, 0.0, 2.0], [1.0, 2.0, 0.0]]",
        ),
        (
            "dpce_loss",
            {"distance_map": torch.zeros(2, 3, 5)},
            "expected `distance_map` to be floating and of the shape of `input`, (2, 3, 4), got shape (2, 3, 5), "
            "torch.float32",
        ),
    ],
)  # fmt: skip
def test_bad_options_say_what_is_wrong(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        loss_of(name, torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.long), **options)
    assert str(caught.value) == message
