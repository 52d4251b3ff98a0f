"""Values worked by hand, and the messages of errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel_loss import functional as F

SURE = 40.0  # a logit whose probability is 1, or, negative, 0


def logits_of(*rows: list[int]) -> Tensor:
    return SURE * (2 * torch.tensor(rows).float() - 1)[None, None]


def target_of(*rows: list[int]) -> Tensor:
    return torch.tensor(rows)[None]


def row(*voxels: int) -> tuple[Tensor, Tensor]:
    return SURE * (2 * torch.tensor(voxels).float() - 1)[None, None], torch.tensor(voxels)[None]


def test_hausdorff_dt() -> None:
    logits, _ = row(1, 1, 1, 0, 0, 0)
    _, target = row(1, 0, 0, 0, 0, 0)
    # Errors at voxels 1 and 2: they lie 2 and 1 voxels inside the prediction, 1 and 2 outside the truth.
    each = F.hausdorff_dt_loss(logits, target, reduction="none")
    assert each.flatten().tolist() == pytest.approx([0, 5, 5, 0, 0, 0])
    assert F.hausdorff_dt_loss(logits, target).item() == pytest.approx(10 / 6)
    assert F.hausdorff_dt_loss(logits, target, side="inside").item() == pytest.approx((4 + 1) / 6)
    assert F.hausdorff_dt_loss(logits, target, alpha=1.0, reduction="sum").item() == pytest.approx(6)
    assert F.hausdorff_dt_loss(logits, target, spacing=0.5).item() == pytest.approx(10 / 6 / 4)
    assert F.hausdorff_dt_loss(logits, target, log=True).item() == pytest.approx(torch.tensor(16 / 6).log().item())


def test_a_voxel_that_does_not_count_lies_in_neither_region() -> None:
    logits, _ = row(1, 1, 0, 0)
    _, target = row(1, 1, 1, 0)
    mask = torch.tensor([[1, 0, 1, 1]])
    # Of 1 ? 0 0 and 1 ? 1 0 voxel 2 is wrong, 2 from the predicted region and 1 from the outside of the true one.
    assert F.hausdorff_dt_loss(logits, target, mask=mask).item() == pytest.approx((2**2 + 1**2) / 3)


def test_hausdorff_er() -> None:
    logits = logits_of([0] * 5, [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0] * 5)
    nothing = torch.zeros(1, 5, 5, dtype=torch.long)
    # Means over the cross, less ½: 0.5 in the centre, 0.3 beside it, 0.1 in the corners; stretched to 1, 0.6, 0.2.
    # The next leaves the centre, (1 + 4·0.6)/5 − ½, and the next nothing.
    first = 1 + 4 * 0.6 + 4 * 0.2
    assert F.hausdorff_er_loss(logits, nothing, reduction="sum").item() == pytest.approx(first + 4)
    assert F.hausdorff_er_loss(logits, nothing, reduction="sum", erosions=1).item() == pytest.approx(first)
    assert F.hausdorff_er_loss(logits, nothing, reduction="sum", alpha=3.0).item() == pytest.approx(first + 8)
    lone, _ = row(0, 0, 1, 0, 0)
    assert F.hausdorff_er_loss(lone, torch.zeros(1, 5, dtype=torch.long)).item() == 0


def test_hausdorff_cv() -> None:
    logits, _ = row(0, 1, 1, 1, 0)
    nothing = torch.zeros(1, 5, dtype=torch.long)
    # The truth is empty in every ball: 1 a false voxel. The prediction fills that of the middle voxel, 2/3 of the
    # others': 1 and 1/3 twice.
    loss = F.hausdorff_cv_loss(logits, nothing, radii=[1], reduction="sum")
    assert loss.item() == pytest.approx(3 + 1 + 2 / 3, rel=1e-5)
    # Balls of radius 2 hold 3 of 4 (2 of them cut by the border), 3 of 5, and 3 of 4.
    loss = F.hausdorff_cv_loss(logits, nothing, radii=[2], reduction="sum")
    assert loss.item() == pytest.approx(4 * (3 + 0.5 + 0.2 + 0.5), rel=1e-5)


def test_sdf_regression() -> None:
    _, target = row(0, 0, 1, 1, 1, 0)
    # −Φ is −1, −½, 0, 1, 0, −½; a network that says 0 everywhere is off by 3 in all, or 2.5 in squares.
    assert F.sdf_regression_loss(torch.zeros(1, 1, 6), target, penalty="l1").item() == pytest.approx(3 / 6)
    assert F.sdf_regression_loss(torch.zeros(1, 1, 6), target, penalty="mse").item() == pytest.approx(2.5 / 6)
    assert F.sdf_regression_loss(torch.zeros(1, 1, 6), target).item() == pytest.approx(3 / 6 + 1 / 3, rel=1e-4)
    given = torch.tensor([[[-0.5, 0.5, 0.5, 0.5, 0.5, 0.5]]])
    loss = F.sdf_regression_loss(torch.zeros(1, 1, 6), target, distance_map=given, penalty="l1")
    assert loss.item() == pytest.approx(0.5)


def test_a_class_without_a_boundary_is_not_regressed() -> None:
    raw, target = torch.randn(2, 3, 6), torch.tensor([[0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]])
    with_boundary = [F.sdf_regression_loss(raw[:1, [c]], (target[:1] == c).long()) for c in (0, 1)]
    torch.testing.assert_close(F.sdf_regression_loss(raw, target), torch.stack(with_boundary).mean())
    assert F.sdf_regression_loss(raw[1:], target[1:]).item() == 0


def test_elastic_interaction() -> None:
    # p − v alternates, 1 0 1 0: half of its energy is constant, the other half has ½ cycle a voxel.
    logits, _ = row(1, 0, 1, 0)
    loss = F.elastic_interaction_loss(logits, torch.zeros(1, 4, dtype=torch.long), alpha=1.0)
    assert loss.item() == pytest.approx(0.5 * 0.25)
    loss = F.elastic_interaction_loss(logits, torch.zeros(1, 4, dtype=torch.long), alpha=1.0, spacing=2.0)
    assert loss.item() == pytest.approx(0.25 * 0.25)


def test_contour_dice() -> None:
    logits, _ = row(0, 0, 1, 1, 1, 0, 0, 0)
    _, target = row(0, 0, 1, 1, 1, 1, 1, 0)
    # Ends at 2 and 4, and at 2 and 6.
    losses = [F.contour_dice_loss(logits, target, tolerance=t).item() for t in (0, 1, 2)]
    assert losses == pytest.approx([0.5, 0.5, 0.0], abs=1e-5)
    assert F.contour_dice_loss(*row(0, 0, 0)).item() == 0


def test_active_contour() -> None:
    square = logits_of([0] * 4, [0, 1, 1, 0], [0, 1, 1, 0], [0] * 4)
    target = torch.zeros(1, 4, 4, dtype=torch.long)
    # Of the 9 cells, 4 lie on sides, of slope 1, and 4 on corners, of slope √½.
    length = (4 + 4 * 0.5**0.5) / 9
    loss = F.active_contour_loss(square, target, region_weight=0.0)
    assert loss.item() == pytest.approx(length, rel=1e-3)
    assert F.active_contour_loss(square, target).item() == pytest.approx(length + 4 / 16, rel=1e-3)
    diagonal = SURE * (2 * torch.ones(9, 9).tril().float() - 1)[None, None]
    loss = F.active_contour_loss(diagonal, torch.zeros(1, 9, 9, dtype=torch.long), region_weight=0.0)
    # The contour runs through 8 cells of the diagonal, ½ an edge to either side, and 7 beside it.
    assert (64 * loss).item() == pytest.approx((8 + 7) * 0.5**0.5, rel=1e-2)


def test_a_contour_beside_a_masked_voxel_has_no_length() -> None:
    logits, target = row(0, 1, 1, 0, 0)
    mask = torch.tensor([[1, 0, 1, 1, 1]])
    # Of the slopes 1 0 1 0 between the voxels, the last two count.
    assert F.active_contour_loss(logits, target, mask=mask).item() == pytest.approx(1 / 2, rel=1e-3)


def test_chan_vese_and_mumford_shah() -> None:
    logits, _ = row(0, 0, 1, 1)
    image = torch.tensor([[[0.0, 2.0, 5.0, 9.0]]])
    # The means are 1 and 7: squares 1, 1, 4, 4.
    fit = {"mu": 0.0, "image": image}
    assert F.chan_vese_loss(logits, None, **fit).item() == pytest.approx(10 / 4)  # type: ignore[arg-type]
    assert F.chan_vese_loss(logits, None, **fit, lambda_outside=0.0).item() == pytest.approx(8 / 4)  # type: ignore[arg-type]
    assert F.chan_vese_loss(logits, None, **fit, nu=-1.0).item() == pytest.approx(10 / 4 - 2 / 4)  # type: ignore[arg-type]
    assert F.mumford_shah_loss(logits, None, **fit).item() == pytest.approx(10 / 4 / 2)  # type: ignore[arg-type]
    # One of the three cells has slope 1.
    longer = F.chan_vese_loss(logits, None, image=image, mu=0.6)
    assert longer.item() == pytest.approx(10 / 4 + 0.6 / 3, rel=1e-3)


def test_geodesic_active_contour() -> None:
    logits, _ = row(0, 0, 1, 1)
    image = torch.tensor([[[0.0, 0.0, 3.0, 3.0]]])
    loss = F.geodesic_active_contour_loss(logits, None, image=image, sigma=0.0)
    assert loss.item() == pytest.approx(1 / (1 + 9) / 3, rel=1e-2)
    loss = F.geodesic_active_contour_loss(logits, None, image=image.flip(-1).roll(1, -1), sigma=0.0)
    assert loss.item() == pytest.approx(1 / 3, rel=1e-2)  # the image is flat where the contour runs


def test_geometrically_constrained() -> None:
    # Two voxels, and the same two 3 further: Dice 1, sizes and shapes equal, variances ¼ + 1/12.
    logits, _ = row(1, 1, 0, 0, 0)
    _, target = row(0, 0, 0, 1, 1)
    expected = 1 + 9 / (9 + 2 * (1 / 4 + 1 / 12)) / 3
    assert F.geometrically_constrained_loss(logits, target).item() == pytest.approx(expected, rel=1e-5)
    # One voxel within three: Dice ½, sizes 1 and 3, variances 1/12 and 2/3 + 1/12 around one centre.
    logits, _ = row(0, 0, 1, 0, 0)
    _, target = row(0, 1, 1, 1, 0)
    expected = 0.5 + 2 * (1 / 4 + (2 / 3) ** 2 / ((1 / 12) ** 2 + (3 / 4) ** 2)) / 3
    loss = F.geometrically_constrained_loss(logits, target, geometry_weight=2.0)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_boundary_heads() -> None:
    logits, target = row(0, 0, 1, 1, 1, 0, 0, 0)
    # The boundary is voxels 2 and 4; a head that says ½ everywhere costs log 2 a voxel.
    hesitant = torch.zeros(1, 1, 8)
    log2 = torch.tensor(2.0).log().item()
    assert F.ce_ce_loss(logits, target, boundary_input=hesitant).item() == pytest.approx(log2)
    # Balanced, 2 voxels weigh 6/8 and 6 voxels 2/8.
    loss = F.nested_level_set_loss(logits, target, boundary_input=hesitant, boundary_weight=2.0)
    assert loss.item() == pytest.approx(2 * log2 * (2 * 6 / 8 + 6 * 2 / 8) / 8)


@pytest.mark.parametrize(
    ("name", "argument"),
    [("dice_sdf_loss", "sdf_input"), ("ce_ce_loss", "boundary_input"), ("nested_level_set_loss", "boundary_input")],
)
def test_the_second_head_learns(name: str, argument: str) -> None:
    logits, target = torch.randn(2, 2, 5, 4, dtype=torch.float64), torch.randint(2, (2, 5, 4))
    head = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: getattr(F, name)(logits, target, **{argument: x}), head)


CASE: dict[str, Any] = {"input": torch.zeros(2, 3, 4, 5), "target": torch.zeros(2, 4, 5, dtype=torch.long)}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hausdorff_dt_loss", {"alpha": 0}, "expected `alpha` to be greater than 0, got 0"),
        ("hausdorff_dt_loss", {"side": "outside"}, "expected `side` to be one of 'both', 'inside', got 'outside'"),
        ("hausdorff_er_loss", {"erosions": 0}, "expected `erosions` to be at least 1, got 0"),
        ("hausdorff_cv_loss", {"radii": [3, 0.5]}, "expected `radii` to be at least 1, got 0.5"),
        ("sdf_regression_loss", {"penalty": "l2"},
         "expected `penalty` to be one of 'l1+product', 'l1', 'mse', got 'l2'"),
        ("sdf_regression_loss", {"distance_map": torch.zeros(2, 1, 4, 5)},
         "expected `distance_map` to be floating and of the shape of `input`, (2, 3, 4, 5), "
         "got shape (2, 1, 4, 5), torch.float32"),
        ("elastic_interaction_loss", {"alpha": -1.0}, "expected `alpha` to be greater than 0, got -1.0"),
        ("elastic_interaction_loss", {"spacing": (1.0, 0.0)},
         "expected `spacing` to have 2 positive values (H, W in mm), one positive value, or shape (B, 2) = (2, 2), "
         "got (1.0, 0.0)"),
        ("contour_dice_loss", {"tolerance": -1}, "expected `tolerance` to be at least 0, got -1"),
        ("contour_dice_loss", {"smooth_nr": 1.0}, "expected `smooth_nr` to be at most `smooth_dr`, 1e-06, got 1.0"),
        ("active_contour_loss", {"epsilon": 0.0}, "expected `epsilon` to be greater than 0, got 0.0"),
        ("chan_vese_loss", {"image": torch.zeros(2, 4, 5)},
         "expected `image` to have shape (B, K, *spatial) with B = 2 and spatial = (4, 5), got shape (2, 4, 5)"),
        ("mumford_shah_loss", {"image": torch.zeros(2, 1, 4, 5), "mu": -1.0},
         "expected `mu` to be at least 0, got -1.0"),
        ("geodesic_active_contour_loss", {"image": torch.zeros(2, 1, 4, 5), "kappa": 0.0},
         "expected `kappa` to be greater than 0, got 0.0"),
        ("ce_ce_loss", {"boundary_input": torch.zeros(2, 2, 4, 5)},
         "expected `boundary_input` to have shape (2, 3, 4, 5), a boundary a class, or (2, 1, 4, 5), "
         "got (2, 2, 4, 5)"),
        ("dice_sdf_loss", {"steepness": 0.0}, "expected `steepness` to be greater than 0, got 0.0"),
        ("level_set_loss", {"epsilon": 0.0}, "expected `epsilon` to be greater than 0, got 0.0"),
        ("geometrically_constrained_loss", {"geometry_weight": -1.0},
         "expected `geometry_weight` to be at least 0, got -1.0"),
    ],
)  # fmt: skip
def test_bad_options_say_what_is_wrong(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        getattr(F, name)(**CASE, **options)
    assert str(caught.value) == message
