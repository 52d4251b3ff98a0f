import pytest
import torch
import torch.nn.functional as F

from multilevel_loss import PAPER_MLL, PAPER_MLN, MLLoss, MLNLoss, signed_distance_map, uncertain_grid_points
from multilevel_loss.functional import boundary_loss, boundary_regression_loss, dice_loss, multilevel_network_loss


def case(channels: int = 1) -> dict[str, torch.Tensor]:
    shape = (2, channels, 8, 9)
    region = torch.randn(shape)
    return {
        "region": region,
        "boundary": torch.randn(shape),
        "pixel": torch.randn(2, channels, 20),
        "fusion": torch.randn(shape),
        "target": torch.randint(max(channels, 2), (2, 8, 9)),
        "point_coords": uncertain_grid_points(region, 20),
    }


def test_boundary_regression_is_boundary_loss_and_squared_error() -> None:
    regressed, target = torch.randn(2, 1, 6, 7), torch.randint(2, (2, 6, 7))
    expected = boundary_loss(regressed, target) + F.mse_loss(regressed, -signed_distance_map(target))
    torch.testing.assert_close(boundary_regression_loss(regressed, target), expected)


def test_boundary_regression_is_least_at_the_map_of_the_truth() -> None:
    target = torch.zeros(1, 9, 9, dtype=torch.long)
    target[:, 3:6, 2:7] = 1
    regressed = (-signed_distance_map(target)).requires_grad_()
    error = boundary_regression_loss(regressed, target) - boundary_loss(regressed, target)
    assert error.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_is_the_weighted_sum_of_its_branches(channels: int) -> None:
    given = case(channels)
    total, terms = MLNLoss(alpha=0.2, beta=0.3, gamma=0.4, return_components=True)(**given)
    cells = (given["point_coords"] * torch.tensor([9, 8])).long()
    labels = torch.stack([y[c[:, 1], c[:, 0]] for y, c in zip(given["target"], cells, strict=True)])
    pixel = given["pixel"]
    expected = {
        "region": dice_loss(given["region"], given["target"]),
        "boundary": boundary_regression_loss(given["boundary"], given["target"]),
        "pixel": F.cross_entropy(pixel, labels)
        if channels > 1
        else F.binary_cross_entropy_with_logits(pixel[:, 0], labels.float()),
        "fusion": dice_loss(given["fusion"], given["target"]),
    }
    assert terms.keys() == expected.keys()
    for name, term in terms.items():
        torch.testing.assert_close(term, expected[name])
    weights = {"region": 1.0, "boundary": 0.2, "pixel": 0.3, "fusion": 0.4}
    torch.testing.assert_close(total, torch.stack([weights[name] * term for name, term in expected.items()]).sum())


def test_a_branch_of_weight_zero_may_be_broken() -> None:
    given = case()
    for branch in ("pixel", "fusion"):
        given[branch] = torch.full_like(given[branch], torch.nan)
    total, terms = MLNLoss(beta=0, gamma=0, return_components=True)(**given)
    assert total.isfinite()
    assert terms.keys() == {"region", "boundary"}


def test_options_reach_every_branch() -> None:
    given = case(3)
    given["target"][:, :2] = 7
    nan = {name: given[name].clone() for name in ("region", "boundary", "fusion")}
    for logits in nan.values():
        logits[:, :, :2] = torch.nan
        logits.requires_grad_()
    coords = given["point_coords"].clone()
    coords[..., 1] = 0.5 + coords[..., 1] / 2  # below the ignored rows
    shared = {"ignore_index": 7, "include_background": False, "weight": [1.0, 2.0, 0.0], "point_coords": coords}
    total = multilevel_network_loss(**(given | nan | shared))  # type: ignore[arg-type]
    assert isinstance(total, torch.Tensor)
    total.backward()
    for logits in nan.values():
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert logits.grad[:, :, :2].count_nonzero() == 0


def test_coarse_and_fine_join_by_omega() -> None:
    given, coarse = case(), torch.randn(2, 1, 8, 9)
    fine = MLNLoss()(**given)
    region = dice_loss(coarse, given["target"])
    torch.testing.assert_close(MLNLoss()(**given, coarse_input=coarse), region / 3 + 2 / 3 * fine)
    mll = {"input": given["fusion"], "target": given["target"], "point_coords": given["point_coords"]}
    joint, terms = MLLoss(omega=(0.3, 0.7), return_components=True)(**mll, coarse_input=coarse)
    torch.testing.assert_close(joint, 0.3 * region + 0.7 * MLLoss()(**mll))
    torch.testing.assert_close(terms["coarse"], region)


def test_the_papers_schedules() -> None:
    mll, mln = MLLoss(**PAPER_MLL), MLNLoss(**PAPER_MLN)
    rows = []
    for epoch in (0, 1, 5, 11, 12, 24):
        for loss in (mll, mln):
            loss.set_epoch(epoch)
        rows.append((*mll.weights.values(), *mln.weights.values()))
    assert rows == [
        (1, 0, 0, 1, 1, 0, 0),
        (1, 0.2, 0, 1, 1, 0, 0),
        (1, 1, 0, 1, 1, 0, 0),
        (1, 1, 0, 1, 1, 0, 0),
        (1, 1, 1, 1, 1, 1, 1),
        (1, 1, 1, 1, 1, 1, 1),
    ]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("fusion", torch.zeros(2, 1, 4, 4),
         "expected `fusion` to have shape (2, 1, 8, 9), as the other logits have, got shape (2, 1, 4, 4)"),
        ("pixel", torch.zeros(2, 1, 19), "expected `pixel` to have shape (B, C, P) = (2, 1, 20), got (2, 1, 19)"),
    ],
)  # fmt: skip
def test_bad_branches_say_what_is_wrong(name: str, value: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        MLNLoss()(**(case() | {name: value}))
    assert str(caught.value) == message
