"""The backbone of FCN-8s: VGG-16, its classifier as convolutions."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from reference.models.imagenet import Weights, load_exactly, read_weights

PADDING = 100
"""Pixels that FCN pads an image by, so that a 7×7 convolution at 1/32 of any image has something to see."""

CONVOLUTIONS = {"classifier.0": ("fc6", 7), "classifier.3": ("fc7", 1)}
"""torchvision's linear layer → the convolution it is here, and its kernel."""


class VGG16(nn.Module):
    """VGG-16 features at 1/8, 1/16 and 1/32 of the input padded by 100 pixels.

    Args:
        in_channels: channels of the input, 3 for a unit of three slices.
        width: channels of the first block; VGG-16's is 64, its last block has 8 times, `fc6` and `fc7` 64 times that.

    Source: Simonyan and Zisserman, Very deep convolutional networks, 2015; `features` named as in torchvision's
        `vgg16`, pooling with rounding up as in Caffe.
    """

    def __init__(self, in_channels: int = 3, *, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.pools: list[int] = []
        for depth, channels in ((2, width), (2, 2 * width), (3, 4 * width), (3, 8 * width), (3, 8 * width)):
            for _ in range(depth):
                layers += [nn.Conv2d(in_channels, channels, 3, padding=1 if layers else PADDING), nn.ReLU()]
                in_channels = channels
            self.pools.append(len(layers))
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.fc6 = nn.Conv2d(8 * width, 64 * width, 7)
        self.fc7 = nn.Conv2d(64 * width, 64 * width, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features after the third and fourth pooling and after `fc7`, of an image (B, in_channels, H, W).

        In training half of `fc6` and of `fc7` is dropped, by torch's own generator.
        """
        pool3 = self.features[: self.pools[2] + 1](image)
        pool4 = self.features[self.pools[2] + 1 : self.pools[3] + 1](pool3)
        x = self.features[self.pools[3] + 1 :](pool4)
        for layer in (self.fc6, self.fc7):
            x = F.dropout(F.relu(layer(x)), training=self.training)
        return pool3, pool4, x

    def load_imagenet(self, weights: Weights = None) -> None:
        """Load the ImageNet weights of torchvision's `vgg16`.

        Args:
            weights: a state dict, or the path of a file that holds one, or None to download torchvision's
                IMAGENET1K_V1 into torch.hub's cache. Its last layer is left out.

        Raises:
            ValueError: if a weight is missing, unknown or of another shape, as it is when `width` is not 64.
        """
        state = {}
        for name, value in read_weights("vgg16", weights).items():
            layer, _, kind = name.rpartition(".")
            if layer in CONVOLUTIONS:
                own, kernel = CONVOLUTIONS[layer]
                name = f"{own}.{kind}"
                value = value if kind == "bias" else value.reshape(len(value), -1, kernel, kernel)
            if layer != "classifier.6":
                state[name] = value
        load_exactly(self, state, "vgg16", self.fc6.in_channels // 8)
