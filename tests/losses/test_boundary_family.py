"""The laws every boundary loss, and every loss of region and boundary, keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import boundary_oracles as oracles
import numpy as np
import pytest
import torch
from torch import Tensor

import multilevel_loss as mll
from multilevel_loss import functional as F
from multilevel_loss import signed_distance_map

LOSSES: dict[str, dict[str, Any]] = {
    "hausdorff_dt_loss": {},
    "hausdorff_er_loss": {},
    "hausdorff_cv_loss": {"radii": (1, 2.5)},
    "sdf_regression_loss": {},
    "elastic_interaction_loss": {},
    "contour_dice_loss": {},
    "active_boundary_loss": {"share": 0.2, "theta": 4.0},
    "active_contour_loss": {},
    "chan_vese_loss": {"nu": 0.1},
    "mumford_shah_loss": {},
    "geodesic_active_contour_loss": {},
    "geometrically_constrained_loss": {},
    "dice_sdf_loss": {"steepness": 20.0},
    "ce_ce_loss": {},
    "nested_level_set_loss": {},
    "level_set_loss": {"epsilon": 0.5},
}
OF_IMAGES = {"chan_vese_loss", "mumford_shah_loss", "geodesic_active_contour_loss"}
TWO_HEADED = {"ce_ce_loss", "nested_level_set_loss"}
# Sums of terms of different shapes are always reduced.
SUMS = {"geometrically_constrained_loss", "dice_sdf_loss", "level_set_loss"} | TWO_HEADED
SHAPES = {"2-D": (11, 9), "3-D": (7, 6, 5)}
every_loss = pytest.mark.parametrize("name", LOSSES)
every_grid = pytest.mark.parametrize("grid", SHAPES.values(), ids=SHAPES)


def loss_of(name: str, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
    function: Callable[..., Tensor] = getattr(F, name)
    return function(logits, target, **(LOSSES[name] | extras(name, logits, target) | options))


def extras(name: str, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Return the arguments beyond logits and target that a loss needs, made of these."""
    if name in OF_IMAGES:
        return {"image": image_of(target, logits)}
    return {"boundary_input": 1 - logits} if name in TWO_HEADED else {}


def image_of(target: Tensor, logits: Tensor) -> Tensor:
    """Return an image that turns and flips with its labels."""
    labels = (target if target.ndim == logits.ndim else target.unsqueeze(1)).float()
    if labels.shape[1] > 1:
        labels = torch.einsum("bc...,c->b...", labels, torch.arange(labels.shape[1], dtype=labels.dtype)).unsqueeze(1)
    return torch.cat([labels, labels.cos() / 2], 1)


def blocks(batch: int, classes: int, grid: tuple[int, ...]) -> Tensor:
    """Return a label map of a few blobs."""
    labels = torch.zeros(batch, *grid, dtype=torch.long)
    for n in range(batch):
        for label in range(1, max(classes, 2)):
            corner = [int(torch.randint(side - 2, ())) for side in grid]
            labels[(n, *(slice(start, start + 3) for start in corner))] = label
    return labels


def degenerate(kind: str, grid: tuple[int, ...]) -> Tensor:
    labels = torch.zeros(2, *grid, dtype=torch.long)
    middle = tuple(side // 2 for side in grid)
    if kind == "full":
        labels += 1
    elif kind == "one voxel":
        labels[(slice(None), *middle)] = 1
    elif kind == "touching the border":
        labels[:, :2, :2] = 1
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
        torch.randn(2, channels, *grid) * 3,
        torch.full((2, channels, *grid), -100.0),
        100 * degenerate("one voxel", grid).unsqueeze(1).repeat(1, channels, *[1] * len(grid)) - 50.0,
    ):
        logits.requires_grad_()
        loss = loss_of(name, logits, target)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite(), logits
        assert gradient.isfinite().all(), logits


# The active boundary loss holds part of the prediction constant, by design.
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "active_boundary_loss"])
@pytest.mark.parametrize(("channels", "grid"), [(1, (5, 4)), (3, (4, 5)), (1, (3, 4, 3)), (2, (7,))])
def test_gradient_is_that_of_the_value(name: str, channels: int, grid: tuple[int, ...]) -> None:
    logits = (3 * torch.randn(2, channels, *grid, dtype=torch.float64)).requires_grad_()
    target = torch.randint(max(channels, 2), (2, *grid))
    assert torch.autograd.gradcheck(lambda x: loss_of(name, x, target), logits, fast_mode=True)


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


# The tracer of torch warns of what it does itself with any custom gradient.
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.* should not be instantiated:DeprecationWarning")
@every_loss
def test_compiled_without_graph_breaks_it_is_the_same(name: str) -> None:
    torch.compiler.reset()
    logits, target = torch.randn(2, 3, 8, 7, requires_grad=True), blocks(2, 3, (8, 7))
    compiled = torch.compile(loss_of, fullgraph=True, backend="aot_eager")
    results = [loss(name, logits, target) for loss in (loss_of, compiled)]
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*(torch.autograd.grad(result, logits)[0] for result in results))


@every_loss
@every_grid
def test_order_of_samples_and_flips_change_nothing(name: str, grid: tuple[int, ...]) -> None:
    logits, target = 3 * torch.randn(3, 2, *grid), blocks(3, 2, grid)
    expected = loss_of(name, logits, target)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(loss_of(name, logits[order], target[order]), expected)
    for axis in range(1, len(grid) + 1):
        torch.testing.assert_close(loss_of(name, logits.flip(-axis), target.flip(-axis)), expected)
    turned = loss_of(name, logits.transpose(-1, -2), target.transpose(-1, -2))  # not contiguous
    torch.testing.assert_close(turned, expected)


@every_loss
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_masked_does_not_matter(name: str, channels: int) -> None:
    logits, target = 3 * torch.randn(2, channels, 8, 7), blocks(2, channels, (8, 7))
    mask = torch.rand(2, 8, 7) > 0.3
    expected = loss_of(name, logits, target, mask=mask)
    poisoned = logits.masked_fill(~mask.unsqueeze(1), torch.nan).requires_grad_()
    loss = loss_of(name, poisoned, target, mask=mask)
    (gradient,) = torch.autograd.grad(loss, poisoned)
    torch.testing.assert_close(loss, expected)
    assert gradient.isfinite().all()
    assert not gradient[(~mask).unsqueeze(1).expand_as(gradient)].any()
    assert loss_of(name, logits, target, mask=torch.zeros_like(mask)) == 0


@every_loss
@pytest.mark.parametrize("channels", [1, 3])
def test_ignored_voxels_belong_to_no_class_and_are_masked(name: str, channels: int) -> None:
    logits, target = 3 * torch.randn(2, channels, 8, 7), blocks(2, channels, (8, 7))
    known = torch.rand(2, 8, 7) > 0.3
    labels = target.masked_fill(~known, 255).to(torch.uint8)
    memberships = one_hot(target, channels).masked_fill(~known.unsqueeze(1), 0)
    torch.testing.assert_close(
        loss_of(name, logits, labels, ignore_index=255), loss_of(name, logits, memberships, mask=known)
    )


def one_hot(labels: Tensor, channels: int) -> Tensor:
    if channels == 1:
        return labels.unsqueeze(1).float()
    return torch.nn.functional.one_hot(labels, channels).movedim(-1, 1).float()


@every_loss
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_label_map_is_its_one_hot_form(name: str, channels: int, dtype: torch.dtype) -> None:
    logits, target = 3 * torch.randn(2, channels, 8, 7), blocks(2, channels, (8, 7))
    expected = loss_of(name, logits, one_hot(target, channels))
    torch.testing.assert_close(loss_of(name, logits, target.to(dtype)), expected)
    torch.testing.assert_close(loss_of(name, logits, target.to(dtype).unsqueeze(1)), expected)


@every_loss
def test_multilabel_channels_are_binary_losses(name: str) -> None:
    logits, target = 3 * torch.randn(2, 3, 8, 7), (torch.rand(2, 3, 8, 7) > 0.6).float()
    options = {"image": torch.rand(2, 1, 8, 7)} if name in OF_IMAGES else {}
    together = loss_of(name, logits, target, mode="multilabel", **options)
    alone = [loss_of(name, logits[:, [c]], target[:, [c]], **options) for c in range(3)]
    torch.testing.assert_close(together, torch.stack(alone).mean())


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in SUMS | {"active_boundary_loss"}])
def test_classes_are_weighed_selected_and_masked_alike(name: str) -> None:
    logits, target = 3 * torch.randn(2, 3, 8, 7), blocks(2, 3, (8, 7))
    each = loss_of(name, logits, target, reduction="none").reshape(2, 3, -1).mean(-1)
    weight = torch.tensor([1.0, 0.0, 3.0])
    torch.testing.assert_close(loss_of(name, logits, target), each.mean())
    weighted = loss_of(name, logits, target, weight=weight)
    torch.testing.assert_close(weighted, (each * weight).sum() / (2 * weight.sum()))
    torch.testing.assert_close(loss_of(name, logits, target, include_background=False), each[:, 1:].mean())
    class_mask = torch.tensor([[1, 0, 1], [0, 1, 1]])
    masked = loss_of(name, logits, target, class_mask=class_mask)
    torch.testing.assert_close(masked, (each * class_mask).sum() / 4)


# The Fourier transform of torch takes no empty batch.
@pytest.mark.parametrize(
    "name", [name for name in LOSSES if name not in {"hausdorff_cv_loss", "elastic_interaction_loss"}]
)
def test_an_empty_batch_is_harmless(name: str) -> None:
    logits = torch.randn(0, 2, 8, 7, requires_grad=True)
    loss = loss_of(name, logits, torch.zeros(0, 8, 7, dtype=torch.long))
    assert loss == 0
    loss.backward()


@every_loss
def test_module_is_the_function(name: str) -> None:
    logits, target = torch.randn(2, 2, 8, 7), blocks(2, 2, (8, 7))
    module_name = "".join(part if part in MODULE_ACRONYMS else part.capitalize() for part in acronyms(name))
    module = getattr(mll, module_name)(**LOSSES[name])
    assert module(logits, target, **extras(name, logits, target)) == loss_of(name, logits, target)
    assert name in F.__all__
    assert module_name in mll.__all__


MODULE_ACRONYMS = {"DT", "ER", "CV", "SDF", "CE"}


def acronyms(name: str) -> list[str]:
    return [part.upper() if part.upper() in MODULE_ACRONYMS else part for part in name.split("_")]


def classes_of(logits: Tensor, target: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return probability and membership of each class of each sample, in NumPy."""
    p, v = logits.softmax(1).double(), one_hot(target, logits.shape[1]).double()
    return [(p[n, c].numpy(), v[n, c].numpy()) for n in range(len(p)) for c in range(p.shape[1])]


@pytest.mark.parametrize(
    ("name", "oracle", "options"),
    [
        ("hausdorff_dt_loss", oracles.hausdorff_dt, {}),
        ("hausdorff_dt_loss", oracles.hausdorff_dt, {"alpha": 1.5, "side": "inside"}),
        ("hausdorff_er_loss", oracles.hausdorff_er, {}),
        ("hausdorff_er_loss", oracles.hausdorff_er, {"alpha": 1, "erosions": 3}),
        ("hausdorff_cv_loss", oracles.hausdorff_cv, {"radii": (3, 6, 9, 12, 15, 18)}),
        ("hausdorff_cv_loss", oracles.hausdorff_cv, {"radii": (1, 2.5), "alpha": 1}),
        ("elastic_interaction_loss", oracles.elastic_interaction, {}),
        ("elastic_interaction_loss", oracles.elastic_interaction, {"alpha": 1.2}),
        ("contour_dice_loss", oracles.contour_dice, {}),
        ("contour_dice_loss", oracles.contour_dice, {"tolerance": 3}),
        ("active_contour_loss", oracles.active_contour, {}),
        ("active_contour_loss", oracles.active_contour, {"region_weight": 3.0}),
    ],
)
@pytest.mark.parametrize("grid", [(13,), (11, 8), (6, 7, 5)])
def test_agrees_with_a_naive_truth(
    name: str, oracle: Callable[..., float], options: dict[str, Any], grid: tuple[int, ...]
) -> None:
    logits, target = 4 * torch.randn(2, 3, *grid), blocks(2, 3, grid)
    expected = np.mean([oracle(p, v, **options) for p, v in classes_of(logits, target)])
    assert loss_of(name, logits, target, **options).item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("penalty", ["l1+product", "l1", "mse"])
def test_regression_agrees_with_a_naive_truth(penalty: str) -> None:
    raw, target = torch.randn(2, 3, 9, 8), blocks(2, 3, (9, 8))
    y_hat, phi = raw.tanh().double(), signed_distance_map(target, num_classes=3, normalize="max").double()
    expected = np.mean(
        [
            oracles.sdf_regression(y_hat[n, c].numpy(), phi[n, c].numpy(), penalty)
            for n in range(2)
            for c in range(3)
            if phi[n, c].any()
        ]
    )
    assert F.sdf_regression_loss(raw, target, penalty=penalty).item() == pytest.approx(expected, rel=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize("spacing", [(3.0, 0.5), (1.0, 4.0)])
def test_spacing_follows_the_axes_of_the_tensor(spacing: tuple[float, float]) -> None:
    logits, target = 4 * torch.randn(2, 2, 9, 8), blocks(2, 2, (9, 8))
    for name, oracle in (
        ("hausdorff_dt_loss", oracles.hausdorff_dt),
        ("elastic_interaction_loss", oracles.elastic_interaction),
        ("active_contour_loss", oracles.active_contour),
    ):
        expected = np.mean([oracle(p, v, spacing=spacing) for p, v in classes_of(logits, target)])
        assert loss_of(name, logits, target, spacing=spacing).item() == pytest.approx(expected, rel=1e-4)
        each = torch.tensor([spacing, spacing])
        torch.testing.assert_close(
            loss_of(name, logits, target, spacing=each), loss_of(name, logits, target, spacing=spacing)
        )


@pytest.mark.parametrize(
    ("name", "oracle", "options"),
    [
        ("chan_vese_loss", oracles.chan_vese, {}),
        ("chan_vese_loss", oracles.chan_vese, {"mu": 0.5, "nu": 0.2, "lambda_inside": 2.0, "lambda_outside": 0.3}),
        ("geodesic_active_contour_loss", oracles.geodesic_active_contour, {}),
        ("geodesic_active_contour_loss", oracles.geodesic_active_contour, {"sigma": 0.0, "kappa": 0.1}),
    ],
)
@pytest.mark.parametrize("grid", [(13,), (11, 8), (6, 7, 5)])
def test_losses_of_images_agree_with_a_naive_truth(
    name: str, oracle: Callable[..., float], options: dict[str, Any], grid: tuple[int, ...]
) -> None:
    logits, image = torch.randn(2, 3, *grid), torch.rand(2, 2, *grid)
    p = logits.softmax(1).double().numpy()
    expected = np.mean([oracle(p[n, c], image[n].double().numpy(), **options) for n in range(2) for c in range(3)])
    loss = getattr(F, name)(logits, None, image=image, **options)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_pieces_of_an_image_agree_with_a_naive_truth() -> None:
    logits, image = torch.randn(2, 3, 7, 6), torch.rand(2, 2, 7, 6)
    for mode in ("multiclass", "multilabel"):
        p = (logits.softmax(1) if mode == "multiclass" else logits.sigmoid()).double().numpy()
        u = image.double().numpy()
        fit = [
            oracles.misfit(u[n], p[n, c])
            if mode == "multiclass"
            else (oracles.misfit(u[n], p[n, c]) + oracles.misfit(u[n], 1 - p[n, c])) / 2
            for n in range(2)
            for c in range(3)
        ]
        length = [oracles.slopes(p[n, c], None, 1e-8).mean() for n in range(2) for c in range(3)]
        loss = F.mumford_shah_loss(logits, None, image=image, mode=mode, mu=0.3)
        assert loss.item() == pytest.approx(np.mean(fit) + 0.3 * np.mean(length), rel=1e-4)


@pytest.mark.parametrize("spacing", [None, (2.0, 0.5)])
def test_geometry_agrees_with_a_naive_truth(spacing: tuple[float, float] | None) -> None:
    logits, target = torch.randn(2, 3, 9, 8), blocks(2, 3, (9, 8))
    expected = np.mean([oracles.geometry(p, v, spacing) for p, v in classes_of(logits, target)])
    loss = F.geometrically_constrained_loss(logits, target, geometry_weight=3.0, spacing=spacing)
    assert loss.item() == pytest.approx(F.dice_loss(logits, target).item() + 3 * expected, rel=1e-4)


def test_level_set_agrees_with_a_naive_truth() -> None:
    logits, target = torch.randn(2, 3, 9, 8), blocks(2, 3, (9, 8))
    expected = np.mean([oracles.level_set(p, v) for p, v in classes_of(logits, target)])
    regions = torch.nn.functional.cross_entropy(logits, target).item()
    loss = F.level_set_loss(logits, target, level_set_weight=2.0)
    assert loss.item() == pytest.approx(regions + 2 * expected, rel=1e-4)


@pytest.mark.parametrize(("name", "balanced"), [("ce_ce_loss", False), ("nested_level_set_loss", True)])
def test_boundary_heads_agree_with_a_naive_truth(name: str, balanced: bool) -> None:
    logits, target, head = torch.randn(2, 3, 9, 8), blocks(2, 3, (9, 8)), torch.randn(2, 3, 9, 8)
    regions = torch.nn.functional.cross_entropy(logits, target).item()
    q, v = head.sigmoid().double().numpy(), one_hot(target, 3).double().numpy()
    each = [oracles.boundary_cross_entropy(q[n, c], v[n, c], balanced) for n in range(2) for c in range(3)]
    loss = getattr(F, name)(logits, target, boundary_input=head, boundary_weight=0.5)
    assert loss.item() == pytest.approx(regions + 0.5 * np.mean(each), rel=1e-4)
    # One boundary for all classes: every voxel with a face neighbour of another class.
    edge = np.stack([np.max([oracles.inner_boundary(v[n, c]) for c in range(3)], axis=0) for n in range(2)])
    off = (1 - edge).mean((1, 2), keepdims=True)
    on, beside = (off, 1 - off) if balanced else (1.0, 1.0)
    expected = -(on * edge * np.log(q[:, 0]) + beside * (1 - edge) * np.log(1 - q[:, 0])).mean()
    loss = getattr(F, name)(logits, target, boundary_input=head[:, :1])
    assert loss.item() == pytest.approx(regions + expected, rel=1e-4)


@pytest.mark.parametrize("penalty", ["l1+product", "l1", "mse"])
def test_dice_and_regression_are_added(penalty: str) -> None:
    logits, head, target = torch.randn(2, 3, 9, 8), torch.randn(2, 3, 9, 8), blocks(2, 3, (9, 8))
    two = F.dice_sdf_loss(logits, target, sdf_input=head, penalty=penalty, sdf_weight=4.0)
    expected = F.dice_loss(logits, target) + 4 * F.sdf_regression_loss(head, target, penalty=penalty)
    torch.testing.assert_close(two, expected)
    micro = mll.DiceLoss(average="micro")
    one = F.dice_sdf_loss(logits, target, penalty=penalty, steepness=9.0, region=micro)
    expected = micro(9 * logits.tanh(), target) + 10 * F.sdf_regression_loss(logits, target, penalty=penalty)
    torch.testing.assert_close(one, expected)


@pytest.mark.parametrize("grid", [(13,), (11, 8), (6, 7, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_active_boundary_agrees_with_a_naive_truth(channels: int, grid: tuple[int, ...]) -> None:
    logits, target = torch.randn(2, channels, *grid), blocks(2, channels, grid)
    p = torch.cat([1 - logits.sigmoid(), logits.sigmoid()], 1) if channels == 1 else logits.softmax(1)
    for options in ({}, {"share": 0.3, "theta": 2.0, "label_smoothing": 0.0}):
        pairs = zip(p.double().numpy(), target.numpy(), strict=True)
        expected = np.mean([oracles.active_boundary(*pair, **options) for pair in pairs])
        loss = F.active_boundary_loss(logits, target, **options)
        assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_active_boundary_moves_to_the_true_one_and_leaves_the_rest() -> None:
    target = torch.zeros(1, 12, 12, dtype=torch.long)
    target[:, :, 8:] = 1
    column = (torch.arange(12.0) - 3.5).expand(1, 1, 12, 12)
    options = {"share": 0.2, "label_smoothing": 0.0}
    logits = column.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.active_boundary_loss(logits, target, **options), logits)  # type: ignore[arg-type]
    assert not gradient[..., [0, 1, 6, 7, 8, 9, 10, 11]].any()
    before = logits.detach().sum()
    for _ in range(200):
        (gradient,) = torch.autograd.grad(F.active_boundary_loss(logits, target, **options), logits)  # type: ignore[arg-type]
        logits.data -= 5 * gradient
    # The boundary at column 3.5 goes right: voxels right of it turn negative, so that logits sink.
    assert logits.sum() < before
    assert (logits[..., 4] < 0).float().mean() > 0.5
