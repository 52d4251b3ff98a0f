"""The network that the coarse and the fine model share: atrous ResNet-18, atrous spatial pyramid pooling, logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reference.models.imagenet import Weights
from reference.models.resnet import ResNet18, UnitBatchNorm2d


class RunningBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization by the running statistics, in training too.

    Image pooling leaves one value a channel. With the paper's batch of one unit that value would be its own mean: it
    has no variance, and torch refuses to train on it.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return `input` (B, C, h, w) normalized."""
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1×1, three atrous 3×3 and image-pooling branches, joined by a 1×1 projection.

    Source: Chen et al., Rethinking atrous convolution (DeepLab-v3), 2017, at its rates 6, 12 and 18.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                conv_bn_relu(in_channels, channels),
                *(conv_bn_relu(in_channels, channels, rate) for rate in (6, 12, 18)),
            ]
        )
        self.pooling = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(in_channels, channels, 1), RunningBatchNorm2d(channels), nn.ReLU()
        )
        self.projection = conv_bn_relu(5 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, channels, h, w) of features (B, in_channels, h, w)."""
        pooled = self.pooling(x).expand(-1, -1, *x.shape[2:])
        joined: Tensor = self.projection(torch.cat([*(branch(x) for branch in self.branches), pooled], dim=1))
        return joined


class Classifier(nn.Conv2d):
    """The convolution from features to logits, which keeps their size; it starts undecided, see `initialize`."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2)


class DeepLab(nn.Module):
    """Logits at 1/`out_stride` of the image: an atrous ResNet-18, ASPP 4·`width` wide and a 1×1 classifier.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits.
        width: channels of the first block; the paper's is 64.
        conv1_stride: stride of the first convolution, 1 or 2.
        max_pool: whether the first block is preceded by max-pooling.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        width: int = 64,
        conv1_stride: int = 2,
        max_pool: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = ResNet18(in_channels, width=width, conv1_stride=conv1_stride, max_pool=max_pool)
        self.aspp = ASPP(self.backbone.out_channels, 4 * width)
        self.classifier = Classifier(4 * width, out_channels)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, out_channels, ⌈H/out_stride⌉, ⌈W/out_stride⌉) of an image (B, in_channels, H, W)."""
        logits: Tensor = self.classifier(self.aspp(self.backbone(image)))
        return logits

    def load_imagenet(self, weights: Weights = None) -> None:
        """Load ImageNet weights into the backbone; see :meth:`ResNet18.load_imagenet`."""
        self.backbone.load_imagenet(weights)


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return `logits` (B, C, h, w) bilinearly interpolated to (B, C, *size)."""
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def conv_bn_relu(in_channels: int, channels: int, rate: int = 0) -> nn.Sequential:
    """Return a 1×1 convolution, or a 3×3 one of an atrous rate, with normalization and ReLU."""
    kernel, padding, dilation = (3, rate, rate) if rate else (1, 0, 1)
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel, padding=padding, dilation=dilation),
        UnitBatchNorm2d(channels),
        nn.ReLU(),
    )
