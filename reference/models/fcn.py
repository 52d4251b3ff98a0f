"""FCN-8s, the network of the recurrent saliency transformation network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reference.models.deeplab import Classifier
from reference.models.imagenet import Weights
from reference.models.vgg import VGG16


class BilinearUpsampling(nn.ConvTranspose2d):
    """A transposed convolution that starts as bilinear interpolation, channel by channel, and learns."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, channels, 2 * stride, stride, bias=False)
        tent = 1 - (torch.arange(2 * stride) + 0.5 - stride).abs() / stride
        with torch.no_grad():
            self.weight.copy_(torch.einsum("ab,i,j->abij", torch.eye(channels), tent, tent))


class FCN8s(nn.Module):
    """Logits at the size of the image: VGG-16, its scores at 1/32, 1/16 and 1/8 upsampled and summed.

    Args:
        out_channels: channels of the logits.
        width: channels of the first block; the published one's is 64.

    Note:
        It reads the first 3 channels of its input. Those of a fine model's are the image times its saliency: unlike
        the paper's, that of the recurrent saliency transformation network does not see the image beside it.

    Source: Shelhamer et al., Fully convolutional networks for semantic segmentation, 2017, and its crops by 5, 9 and
        31 pixels; Yu et al., Recurrent saliency transformation network, CVPR 2018.
    """

    def __init__(self, out_channels: int = 3, *, width: int = 64) -> None:
        super().__init__()
        self.backbone = VGG16(3, width=width)
        self.score_pool3 = Classifier(4 * width, out_channels)
        self.score_pool4 = Classifier(8 * width, out_channels)
        self.score_fc7 = Classifier(64 * width, out_channels)
        self.upscore2 = BilinearUpsampling(out_channels, 2)
        self.upscore_pool4 = BilinearUpsampling(out_channels, 2)
        self.upscore8 = BilinearUpsampling(out_channels, 8)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, out_channels, H, W) of an image (B, 3 or more, H, W)."""
        pool3, pool4, fc7 = self.backbone(image[:, :3])
        scores = _add(self.upscore2(self.score_fc7(fc7)), self.score_pool4(pool4), 5)
        scores = _add(self.upscore_pool4(scores), self.score_pool3(pool3), 9)
        logits: Tensor = self.upscore8(scores)[..., 31 : 31 + image.shape[2], 31 : 31 + image.shape[3]]
        return logits

    def load_imagenet(self, weights: Weights = None) -> None:
        """Load ImageNet weights into the backbone; see :meth:`VGG16.load_imagenet`."""
        self.backbone.load_imagenet(weights)


def _add(coarser: Tensor, scores: Tensor, start: int) -> Tensor:
    """Return `coarser` plus the part of `scores` of its size that begins at `start`."""
    height, width = coarser.shape[2:]
    return coarser + scores[..., start : start + height, start : start + width]
