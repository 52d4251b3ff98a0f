"""What each term of the multi-level loss teaches, shown by training for a moment."""

import numpy as np
import pytest
import torch
from torch import nn

from multilevel_loss import BoundaryLoss, MLLoss, signed_distance_map
from multilevel_loss.functional import boundary_loss, dice_loss, uncertain_point_loss
from reference.evaluation import dice_score, hausdorff_distance_95


def ambiguous_case() -> tuple[torch.Tensor, torch.Tensor]:
    """An organ whose rim looks like a small blob far away, image (1, 1, 40, 40) and label map (1, 40, 40).

    By its brightness alone the rim cannot be had without the blob. The rim has more voxels, so taking both gives the
    better overlap; the blob lies some 20 voxels off, so leaving both gives the better boundary.
    """
    image, label = torch.zeros(1, 1, 40, 40), torch.zeros(1, 40, 40, dtype=torch.long)
    label[:, 4:16, 4:16] = 1
    image[:, 0, 4:16, 4:16] = 0.5
    image[:, 0, 5:15, 5:15] = 1.0
    image[:, 0, 30:35, 30:35] = 0.5
    return image, label


def train(loss: MLLoss, image: torch.Tensor, label: torch.Tensor) -> np.ndarray:
    """Return the mask that a small network of single voxels learns."""
    network = nn.Sequential(nn.Conv2d(1, 16, 1), nn.ReLU(), nn.Conv2d(16, 1, 1))
    optimizer = torch.optim.Adam(network.parameters(), 0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss(network(image), label).backward()
        optimizer.step()
    return (network(image) > 0).numpy(force=True)[0, 0]


def test_the_boundary_term_sees_how_far_an_error_lies_where_dice_is_blind() -> None:
    image, label = ambiguous_case()
    truth = label[0].numpy() > 0
    region = train(MLLoss(alpha=0, beta=0), image, label)
    both = train(MLLoss(boundary=BoundaryLoss(), beta=0), image, label)
    assert dice_score(region, truth) > dice_score(both, truth)  # what the region term asks for, and gets
    assert hausdorff_distance_95(region, truth, (1, 1)) > 15
    assert hausdorff_distance_95(both, truth, (1, 1)) <= 1.5


@pytest.mark.parametrize(
    ("loss", "is_found"), [(MLLoss(), True), (MLLoss(boundary=BoundaryLoss()), False)], ids=["bounded", "in voxels"]
)
def test_a_small_organ_is_found_without_an_option_set(loss: MLLoss, is_found: bool) -> None:
    image, label = 0.3 * torch.randn(1, 1, 96, 96), torch.zeros(1, 96, 96, dtype=torch.long)
    label[:, 40:45, 20:27] = 1
    image += 2 * label
    mask = train(loss, image, label)
    assert (dice_score(mask, label[0].numpy() > 0) > 0.8) == is_found


def test_dice_cannot_tell_a_near_error_from_a_far_one_and_the_boundary_loss_can() -> None:
    _, label = ambiguous_case()
    losses = []
    for left in (17, 37):  # two voxels from the organ, and twenty-two
        logits = (40.0 * label - 20).unsqueeze(1)
        logits[:, :, 8:10, left : left + 2] = 20.0
        losses.append((dice_loss(logits, label).item(), boundary_loss(logits, label).item()))
    (near_dice, near_boundary), (far_dice, far_boundary) = losses
    assert near_dice == pytest.approx(far_dice)
    assert far_boundary > near_boundary + 0.01


def test_the_point_term_moves_the_prediction_near_its_boundary_alone() -> None:
    label = torch.zeros(1, 40, 40, dtype=torch.long)
    label[:, 10:30, 10:30] = 1
    # The prediction is the organ shifted by two voxels, the surer of itself the farther from its boundary.
    distance = signed_distance_map(torch.roll(label, 2, dims=2), boundary="midpoint")
    before = -3 * distance
    logits = before.clone().requires_grad_()
    optimizer = torch.optim.SGD([logits], 200.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        optimizer.zero_grad()
        loss = uncertain_point_loss(logits, label, num_points=500, importance_sample_ratio=1.0, generator=generator)
        loss.backward()
        optimizer.step()
    moved = (logits.detach() - before).abs() > 0.01
    wrong = [int(((z[:, 0] > 0) != (label > 0)).sum()) for z in (before, logits.detach())]
    assert moved[distance.abs() < 2].float().mean() > 0.9
    assert not moved[distance.abs() > 6].any()
    assert wrong[0] == 80
    assert wrong[1] < 8
