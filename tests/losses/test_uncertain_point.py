import pytest
import torch
import torch.nn.functional as F

from multilevel_loss import UncertainPointLoss, sample_points
from multilevel_loss.functional import uncertain_point_loss


def centres(*grid: int) -> torch.Tensor:
    """The centre of each cell of a grid, in the order of the flattened grid."""
    axes = torch.meshgrid(*[(torch.arange(size) + 0.5) / size for size in grid], indexing="ij")
    return torch.stack(axes[::-1], -1).view(1, -1, len(grid))


@pytest.mark.parametrize("grid", [(6,), (4, 5), (3, 2, 4)])
def test_at_every_cell_centre_it_is_the_cross_entropy(grid: tuple[int, ...]) -> None:
    coords = centres(*grid).expand(2, -1, -1)
    binary, labels = torch.randn(2, 1, *grid), torch.randint(2, (2, *grid))
    torch.testing.assert_close(
        uncertain_point_loss(binary, labels, point_coords=coords),
        F.binary_cross_entropy_with_logits(binary, labels.unsqueeze(1).float()),
    )
    logits, classes = torch.randn(2, 3, *grid), torch.randint(3, (2, *grid))
    weight = torch.tensor([0.5, 1.0, 2.0])
    torch.testing.assert_close(
        uncertain_point_loss(logits, classes, point_coords=coords, weight=weight),
        F.cross_entropy(logits, classes, weight),
    )
    several = torch.randint(2, (2, 3, *grid)).float()
    torch.testing.assert_close(
        uncertain_point_loss(logits, several, mode="multilabel", point_coords=coords),
        F.binary_cross_entropy_with_logits(logits, several),
    )


def test_between_centres_by_hand() -> None:
    # Halfway between logits 2 and 0, and labels 1 and 0: BCE of logit 1 against ½.
    loss = uncertain_point_loss(
        torch.tensor([[[2.0, 0.0]]]), torch.tensor([[1, 0]]), point_coords=torch.tensor([[[0.5]]]), reduction="none"
    )
    assert loss.shape == (1, 1, 1)
    assert loss.item() == pytest.approx(torch.log(torch.tensor(1 + torch.e)).item() - 0.5)


def test_coarse_logits_see_the_fine_labels_at_the_same_places() -> None:
    coarse, labels = torch.randn(1, 1, 4, 4), torch.randint(2, (1, 16, 16))
    coords = torch.rand(1, 50, 2)
    expected = F.binary_cross_entropy_with_logits(
        sample_points(coarse, coords), sample_points(labels.unsqueeze(1).float(), coords)
    )
    torch.testing.assert_close(uncertain_point_loss(coarse, labels, point_coords=coords), expected)


def test_same_generator_same_loss() -> None:
    logits, labels = torch.randn(1, 1, 9, 9), torch.randint(2, (1, 9, 9))
    loss = UncertainPointLoss(num_points=16)
    first, second = (loss(logits, labels, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.equal(second)
    assert not first.equal(loss(logits, labels, generator=torch.Generator().manual_seed(4)))


def test_ignored_voxels_have_no_say() -> None:
    # The right half is ignored, its logits are NaN: no point may fall there, none may take its label from there.
    labels = torch.ones(1, 4, 8, dtype=torch.long)
    labels[..., 4:] = 255
    logits = torch.full((1, 1, 4, 8), 200.0)
    logits[..., 4:] = torch.nan
    logits.requires_grad_()
    loss = uncertain_point_loss(logits, labels, ignore_index=255, num_points=200)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert gradient.isfinite().all()
    assert gradient[..., 5:].count_nonzero() == 0


def test_replayed_points_on_ignored_voxels_do_not_count() -> None:
    labels = torch.tensor([[1, 255]])
    coords = torch.tensor([[[0.25], [0.75]]])
    logits = torch.tensor([[[0.0, 9.0]]])
    loss = uncertain_point_loss(logits, labels, ignore_index=255, point_coords=coords)
    assert loss.item() == pytest.approx(0.6931, abs=1e-4)


def test_all_ignored_is_no_loss() -> None:
    logits = torch.randn(1, 3, 5, requires_grad=True)
    loss = uncertain_point_loss(logits, torch.full((1, 5), 9), ignore_index=9)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.count_nonzero() == 0


def test_the_background_is_left_out_of_several_labels_but_not_of_a_softmax() -> None:
    logits, labels = torch.randn(1, 3, 20), torch.randint(3, (1, 20))
    several, coords = torch.randint(2, (1, 3, 20)).float(), centres(20)
    torch.testing.assert_close(
        uncertain_point_loss(logits, several, mode="multilabel", point_coords=coords, include_background=False),
        F.binary_cross_entropy_with_logits(logits[:, 1:], several[:, 1:]),
    )
    torch.testing.assert_close(
        uncertain_point_loss(logits, labels, point_coords=coords, include_background=False),
        F.cross_entropy(logits, labels),
    )
