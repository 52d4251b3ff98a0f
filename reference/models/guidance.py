"""The fusion of the branches' features into the final logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reference.models.deeplab import Classifier, conv_bn_relu


class SaliencyGuidance(nn.Module):
    """The multi-level saliency guidance module.

    Two 1×1 convolutions of the sum of boundary and pixel features give two weight maps. Those times the boundary and
    the pixel features are two saliency maps; those times the region features are, side by side, what two more 1×1
    convolutions turn into logits.

    Args:
        channels: channels of each branch's features.
        out_channels: channels of the logits.

    Note:
        The paper calls the convolutions depth-wise. Those would neither "extract the mutual relation" nor cost what
        Table 8 says; these are dense.

    Source: §3.4.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.boundary_weight = nn.Conv2d(channels, channels, 1)
        self.pixel_weight = nn.Conv2d(channels, channels, 1)
        self.fusion = conv_bn_relu(2 * channels, 2 * channels)
        self.classifier = Classifier(2 * channels, out_channels)

    def forward(self, region: Tensor, boundary: Tensor, pixel: Tensor) -> Tensor:
        """Return logits (B, out_channels, H, W) of the branches' features, (B, channels, H, W) each."""
        both = boundary + pixel
        boundary_saliency = self.boundary_weight(both) * boundary
        pixel_saliency = self.pixel_weight(both) * pixel
        joined = torch.cat([region * boundary_saliency, region * pixel_saliency], dim=1)
        logits: Tensor = self.classifier(self.fusion(joined))
        return logits


class ConvolutionalFusion(nn.Module):
    """Four 3×3 convolutions: what Table 9 compares the guidance module with.

    Args:
        channels: channels of each branch's features.
        out_channels: channels of the logits.

    Source: §5.3.2, which gives no width; these come to the 4.0e7 parameters of its Table 9.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv_bn_relu(2 * channels, 2 * channels, rate=1),
            conv_bn_relu(2 * channels, channels, rate=1),
            conv_bn_relu(channels, channels, rate=1),
            Classifier(channels, out_channels, kernel=3),
        )

    def forward(self, region: Tensor, boundary: Tensor, pixel: Tensor) -> Tensor:
        """Return logits (B, out_channels, H, W) of the branches' features, (B, channels, H, W) each."""
        logits: Tensor = self.layers(torch.cat([region, boundary + pixel], dim=1))
        return logits
