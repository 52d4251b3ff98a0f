"""The loss as nnU-Net calls it, without nnU-Net; with it, see tests/integration."""

import pytest
import torch

from multilevel_loss import BoundaryLoss, MLLoss
from multilevel_loss.nnunet import LevelLoss


def boundary_alone(**options):
    return MLLoss(boundary=BoundaryLoss(), beta=0.0, return_components=True, **options)


def test_a_coarser_output_has_larger_voxels():
    target = torch.randint(2, (1, 1, 4, 6, 6), dtype=torch.int16)
    output = torch.randn(1, 2, 4, 6, 6)
    level = LevelLoss(boundary_alone(mode="multiclass"), spacing=(3.0, 1.0, 0.5), patch_size=(4, 12, 24))
    _, terms = level(output, target)
    _, expected = boundary_alone(mode="multiclass")(output, target, spacing=(3.0, 2.0, 2.0))
    assert terms == expected


@pytest.mark.parametrize("dtype", [torch.bool, torch.int16, torch.float32])
def test_the_ignored_channel_of_regions_masks_them(dtype):
    regions = torch.rand(2, 2, 6, 7) > 0.5
    ignored = torch.rand(2, 1, 6, 7) > 0.7
    output = torch.randn(2, 2, 6, 7)
    loss = MLLoss(mode="multilabel", alpha=0.0, beta=0.0)
    level = LevelLoss(loss, spacing=(1.0, 1.0), patch_size=(6, 7), ignored_channel=True)
    result = level(output, torch.cat([regions, ignored], 1).to(dtype))
    assert result == loss(output, regions.float(), mask=~ignored)
    assert result != loss(output, regions.float())


def test_half_precision_outputs_and_float_labels():
    target = torch.randint(3, (2, 1, 5, 8, 8))
    level = LevelLoss(MLLoss(mode="multiclass", ignore_index=2), spacing=(2.0, 1.0, 1.0), patch_size=(5, 8, 8))
    output = torch.randn(2, 2, 5, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    level(output, target.float()).backward()
    assert output.grad.isfinite().all()
    assert not output.grad.masked_select(target == 2).any()
