import pytest
import torch

from multilevel_loss import BoundaryLoss, ChanVeseLoss, CombinedLoss, DeepSupervision, DiceLoss, signed_distance_map
from multilevel_loss.functional import boundary_loss, chan_vese_loss, dice_loss


def outputs(*sizes: tuple[int, ...], channels: int = 2) -> list[torch.Tensor]:
    return [torch.randn(2, channels, *size) for size in sizes]


def test_each_level_sees_the_target_on_its_own_grid() -> None:
    predictions = outputs((8, 12), (4, 6), (2, 3))
    target = torch.randint(2, (2, 8, 12))
    levels = [target, target[:, 1::2, 1::2], target[:, 2::4, 2::4]]
    losses = [dice_loss(f, v) for f, v in zip(predictions, levels, strict=True)]
    expected = (4 * losses[0] + 2 * losses[1] + losses[2]) / 7
    torch.testing.assert_close(DeepSupervision(DiceLoss())(predictions, target), expected)
    torch.testing.assert_close(DeepSupervision(DiceLoss())(predictions, target.unsqueeze(1)), expected)
    weighted = DeepSupervision(DiceLoss(), weights=[1.0, 0.0, 2.0])(predictions, target)
    torch.testing.assert_close(weighted, losses[0] + 2 * losses[2])


def test_odd_sides_take_the_voxel_at_the_centre() -> None:
    (prediction,) = outputs((3,))
    target = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 1, 0, 0]])  # centres at 5/6, 5/2 and 25/6
    expected = dice_loss(prediction, target[:, [0, 2, 4]])
    torch.testing.assert_close(DeepSupervision(DiceLoss())([prediction], target), expected)


def test_memberships_are_averaged() -> None:
    predictions = outputs((4, 4), (2, 2))
    target = torch.rand(2, 2, 4, 4)
    mean = torch.nn.functional.avg_pool2d(target, 2)
    expected = (2 * dice_loss(predictions[0], target) + dice_loss(predictions[1], mean)) / 3
    torch.testing.assert_close(DeepSupervision(DiceLoss())(predictions, target), expected)


def test_maps_are_rescaled_in_grid_and_in_value() -> None:
    _, prediction = outputs((9, 9), (3, 3))
    target = torch.zeros(2, 9, 9, dtype=torch.long)
    target[:, 3:6, 3:6] = 1
    given = signed_distance_map(target, num_classes=2, boundary="midpoint")
    # The centres of the coarse voxels are 3 fine voxels apart: 2.5 fine voxels outside are 5/6 of a coarse one.
    expected = boundary_loss(prediction, target[:, 1::3, 1::3], distance_map=given[..., 1::3, 1::3] / 3)
    torch.testing.assert_close(DeepSupervision(BoundaryLoss())([prediction], target, distance_map=given), expected)
    in_mm = DeepSupervision(BoundaryLoss())([prediction], target, distance_map=2 * given, spacing=2.0)
    torch.testing.assert_close(in_mm, 6 * expected)


def test_spacing_mask_and_image_follow_the_grid() -> None:
    (prediction,) = outputs((4, 3))
    target, mask, image = torch.randint(2, (2, 8, 12)), torch.rand(2, 8, 12) > 0.3, torch.rand(2, 1, 8, 12)
    coarse, seen = target[:, 1::2, 2::4], mask[:, 1::2, 2::4]
    loss = DeepSupervision(BoundaryLoss())([prediction], target, spacing=(1.0, 0.5), mask=mask)
    torch.testing.assert_close(loss, boundary_loss(prediction, coarse, spacing=(2.0, 2.0), mask=seen))
    loss = DeepSupervision(ChanVeseLoss())([prediction], target, image=image, mask=mask)
    pooled = torch.nn.functional.avg_pool2d(image, (2, 4))
    torch.testing.assert_close(loss, chan_vese_loss(prediction, coarse, image=pooled, mask=seen))


def test_terms_are_weighted_as_their_sum() -> None:
    predictions, target = outputs((4, 4), (2, 2)), torch.randint(2, (2, 4, 4))
    combined = CombinedLoss({"dice": (DiceLoss(), 1.0), "boundary": (BoundaryLoss(), 0.5)}, return_components=True)
    total, terms = DeepSupervision(combined)(predictions, target)
    torch.testing.assert_close(total, terms["dice"] + 0.5 * terms["boundary"])
    torch.testing.assert_close(terms["dice"], DeepSupervision(DiceLoss())(predictions, target))


def test_bad_arguments_say_what_is_wrong() -> None:
    predictions, target = outputs((4, 4), (2, 2)), torch.randint(2, (2, 4, 4))
    with pytest.raises(ValueError, match=r"expected `weights` to be at least 0, got -1"):
        DeepSupervision(DiceLoss(), weights=[1, -1])
    with pytest.raises(ValueError, match="expected `inputs` to hold one prediction a weight, 1, got 2"):
        DeepSupervision(DiceLoss(), weights=[1])(predictions, target)
    with pytest.raises(ValueError, match=r"where all axes are reduced alike, got factors \(1.0, 2.0\): give it in mm"):
        DeepSupervision(BoundaryLoss())(outputs((4, 2)), target, distance_map=torch.zeros(2, 2, 4, 4))
