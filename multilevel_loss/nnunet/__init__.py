"""The multi-level loss in nnU-Net v2; this folder is what its variable nnUNet_extTrainer names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from multilevel_loss.losses.multilevel import MLLoss


class LevelLoss(nn.Module):
    """The multi-level loss as nnU-Net calls it, once for each output of deep supervision.

    Args:
        loss: of mode "multilabel" where the outputs are regions.
        spacing: mm of the voxels of the patch, one value an axis.
        patch_size: voxels of the patch; those of a coarser output are as much larger as they are fewer.
        ignored_channel: the last channel of a target of regions holds the voxels that do not count.

    Example:
        >>> import torch
        >>> level = LevelLoss(MLLoss(), spacing=(3.0, 1.0, 1.0), patch_size=(8, 16, 16))
        >>> target = torch.randint(3, (2, 1, 8, 8, 8), dtype=torch.int16)
        >>> level(torch.randn(2, 3, 8, 8, 8), target).shape  # half the resolution in two axes
        torch.Size([])
    """

    def __init__(
        self, loss: MLLoss, spacing: Sequence[float], patch_size: Sequence[int], ignored_channel: bool = False
    ) -> None:
        super().__init__()
        self.loss = loss
        self.spacing = spacing
        self.patch_size = patch_size
        self.ignored_channel = ignored_channel

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (B, C, *spatial) against a label map (B, 1, *spatial) or regions, one a channel."""
        mask = None
        if self.ignored_channel:
            target, mask = target[:, :-1], target[:, -1:] == 0
        spacing = [
            step * full / size for step, full, size in zip(self.spacing, self.patch_size, output.shape[2:], strict=True)
        ]
        target = target.float() if self.loss.mode == "multilabel" else target.long()
        return cast(Tensor, self.loss(output, target, spacing=spacing, mask=mask))
