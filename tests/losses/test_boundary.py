from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multilevel_loss import BoundaryLoss, signed_distance_map
from multilevel_loss.functional import boundary_loss


def test_by_hand() -> None:
    # Φ of 1 1 1 0 0 is −2 −1 0 1 2, and p = ½ everywhere but in the first voxel.
    logits, truth = torch.tensor([[[200.0, 0, 0, 0, 0]]]), torch.tensor([[1, 1, 1, 0, 0]])
    assert boundary_loss(logits, truth, reduction="none").flatten().tolist() == [-2, -0.5, 0, 0.5, 1]
    assert boundary_loss(logits, truth).item() == pytest.approx(-1 / 5)
    assert boundary_loss(logits, truth, reduction="sum").item() == pytest.approx(-1)
    # The least possible sum is −3.
    assert boundary_loss(logits, truth, offset="optimal").item() == pytest.approx(2 / 5)
    assert boundary_loss(logits, truth, spacing=0.5).item() == pytest.approx(-1 / 10)
    # Distances to the last voxel of the other side, the inner ones less 1.
    assert boundary_loss(logits, truth, boundary="kervadec", reduction="sum").item() == pytest.approx(-1)


def test_gradient_is_the_map_times_the_slope_of_the_activation() -> None:
    logits = torch.randn(1, 1, 6, 5, requires_grad=True)
    truth = torch.zeros(1, 6, 5, dtype=torch.long)
    truth[:, 2:5, 1:4] = 1
    (gradient,) = torch.autograd.grad(boundary_loss(logits, truth, reduction="sum"), logits)
    p = logits.detach().sigmoid()
    torch.testing.assert_close(gradient, p * (1 - p) * signed_distance_map(truth))


def test_offset_changes_no_gradient_and_reaches_zero() -> None:
    truth = torch.zeros(1, 7, 7, dtype=torch.long)
    truth[:, 2:5, 2:5] = 1
    logits = torch.randn(1, 1, 7, 7, requires_grad=True)
    gradients = [
        torch.autograd.grad(boundary_loss(logits, truth, offset=offset), logits)[0] for offset in (None, "optimal")
    ]  # type: ignore[arg-type]
    torch.testing.assert_close(*gradients)
    assert boundary_loss(logits, truth, offset="optimal").item() > 0
    perfect = (400.0 * truth - 200).unsqueeze(1)
    assert boundary_loss(perfect, truth, offset="optimal").item() == 0


def test_spacing_follows_the_axes_of_the_tensor() -> None:
    truth = torch.zeros(1, 9, 9, dtype=torch.long)
    truth[:, 3:6, 3:6] = 1
    logits = torch.full((1, 1, 9, 9), -200.0)
    logits[0, 0, 0, 4] = 200  # three voxels above the square
    for spacing, distance in (((5.0, 1.0), 15.0), ((1.0, 5.0), 3.0)):
        assert boundary_loss(logits, truth, spacing=spacing, reduction="sum").item() == pytest.approx(distance)


def test_given_map_is_used_as_it_is() -> None:
    logits, truth = torch.randn(2, 3, 6, 7), torch.randint(3, (2, 6, 7))
    given = torch.randn(2, 3, 6, 7, dtype=torch.float16)
    expected = (logits.softmax(1) * given.float())[:, 1:].mean()
    torch.testing.assert_close(boundary_loss(logits, truth, distance_map=given, include_background=False), expected)


@pytest.mark.parametrize("options", [{"normalize": "max"}, {"clip": 1.5}, {"normalize": "max", "clip": 2.0}])
def test_a_given_map_is_bounded_as_one_that_is_computed(options: dict[str, Any]) -> None:
    logits, truth = torch.randn(2, 3, 6, 7), torch.randint(2, (2, 6, 7))  # class 2 is absent
    given = signed_distance_map(truth, num_classes=3)
    before = given.clone()
    for reduction in ("mean", "none"):
        torch.testing.assert_close(
            boundary_loss(logits, truth, distance_map=given, reduction=reduction, **options),
            boundary_loss(logits, truth, reduction=reduction, **options),
        )
    assert given.equal(before)


def test_masked_voxels_do_not_count_and_belong_to_no_class() -> None:
    # Φ of 1 1 ? ? 0 is −1 0 1 2 3.
    truth, mask = torch.tensor([[1, 1, 1, 1, 0]]), torch.tensor([[1, 1, 0, 0, 1]])
    loss = boundary_loss(torch.zeros(1, 1, 5), truth, mask=mask, reduction="none")
    assert loss.flatten().tolist() == [-0.5, 0, 0, 0, 1.5]
    assert boundary_loss(torch.zeros(1, 1, 5), truth, mask=mask).item() == pytest.approx(1 / 3)
    assert boundary_loss(torch.zeros(1, 1, 5), truth, mask=mask, offset="optimal").item() == pytest.approx(2 / 3)
    # Whoever knows the labels there gives the map.
    known = signed_distance_map(truth)
    given = boundary_loss(torch.zeros(1, 1, 5), truth, mask=mask, distance_map=known, reduction="none")
    assert given.flatten().tolist() == [-1.5, -1, 0, 0, 0.5]


@settings(deadline=None, max_examples=20)
@given(scale=st.floats(0.1, 10))
def test_loss_scales_with_spacing(scale: float) -> None:
    truth = torch.zeros(1, 6, 8, dtype=torch.long)
    truth[:, 2:4, 3:6] = 1
    logits = torch.linspace(-3, 3, 48).view(1, 1, 6, 8)
    once = boundary_loss(logits, truth, spacing=(2.0, 1.0))
    torch.testing.assert_close(boundary_loss(logits, truth, spacing=(2 * scale, scale)), scale * once)


@pytest.mark.parametrize("shape", [(2, 3, 6, 6), (2, 1, 6, 7)])
def test_bad_map_says_what_is_wrong(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        boundary_loss(torch.zeros(2, 3, 6, 7), torch.zeros(2, 6, 7, dtype=torch.long), distance_map=torch.zeros(shape))
    assert str(caught.value) == (
        f"expected `distance_map` to be floating and of the shape of `input`, (2, 3, 6, 7), got shape {shape}, "
        "torch.float32"
    )


def test_bad_offset_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"expected `offset` to be one of None, 'optimal', got 'minimum'"):
        BoundaryLoss(offset="minimum")(torch.zeros(1, 1, 4), torch.zeros(1, 4, dtype=torch.long))  # type: ignore[arg-type]
