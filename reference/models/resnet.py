"""The backbone: ResNet-18 without its classifier, its last two blocks atrous."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from reference.models.imagenet import Weights, load_exactly, read_weights, repeat_input_channels


class UnitBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization of each unit of slices by its own statistics, in training and in testing.

    Training at the paper's batch of one unit is this anyway. Testing by running statistics would then show the later
    layers what they never saw: on pancreas slices it costs over ten points of DSC. So these are kept, but not used.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return `input` (B, C, h, w) normalized."""
        return F.instance_norm(input, weight=self.weight, bias=self.bias, eps=self.eps)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, named as in torchvision."""

    def __init__(self, in_channels: int, channels: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn1 = UnitBatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = UnitBatchNorm2d(channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), UnitBatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, `channels` wide."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.downsample(x))


class ResNet18(nn.Module):
    """ResNet-18 features at 1/`out_stride` of the input, block3 and block4 at atrous rates 2 and 4.

    The two choices of the paper's Table 2 are `conv1_stride` and `max_pool`; `out_stride` follows from them:
    8 (2, True), 4 (2, False), 4 (1, True: the fine model), 2 (1, False).

    Args:
        in_channels: channels of the input, 3 for a unit of three slices.
        width: channels of the first block; the later ones have 2, 4 and 8 times as many. The paper's is 64.
        conv1_stride: stride of the first convolution, 1 or 2.
        max_pool: whether the first block is preceded by max-pooling of stride 2.

    Source: He et al., Deep residual learning, CVPR 2016; parameter names as in torchvision's `resnet18`.
    """

    def __init__(self, in_channels: int = 3, *, width: int = 64, conv1_stride: int = 2, max_pool: bool = True) -> None:
        super().__init__()
        self.out_channels = 8 * width
        self.out_stride = 2 * conv1_stride * (2 if max_pool else 1)
        self.conv1 = nn.Conv2d(in_channels, width, 7, conv1_stride, padding=3, bias=False)
        self.bn1 = UnitBatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if max_pool else nn.Identity()
        self.layer1 = _layer(width, width, stride=1, dilation=1)
        self.layer2 = _layer(width, 2 * width, stride=2, dilation=1)
        self.layer3 = _layer(2 * width, 4 * width, stride=1, dilation=2)
        self.layer4 = _layer(4 * width, 8 * width, stride=1, dilation=4)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (B, 8·width, ⌈H/out_stride⌉, ⌈W/out_stride⌉) of an image (B, in_channels, H, W)."""
        return self.features(x)[1]

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of the first block (B, width, h, w), twice as fine, and of the last, as `forward`."""
        first = self.layer1(self.maxpool(F.relu(self.bn1(self.conv1(x)))))
        return first, self.layer4(self.layer3(self.layer2(first)))

    def load_imagenet(self, weights: Weights = None) -> None:
        """Load the ImageNet weights of torchvision's `resnet18`.

        The first convolution's weights are repeated over the input's channels and divided by the number of
        repetitions, so that copies of one image give the features of that image.

        Args:
            weights: a state dict, or the path of a file that holds one, or None to download torchvision's
                IMAGENET1K_V1 into torch.hub's cache. Its classifier `fc` is left out.

        Raises:
            ValueError: if a weight is missing, unknown or of another shape, as it is when `width` is not 64.
        """
        given = read_weights("resnet18", weights)
        state = {name: value for name, value in given.items() if not name.startswith("fc.")}
        if "conv1.weight" in state:
            state["conv1.weight"] = repeat_input_channels(state["conv1.weight"], self.conv1.in_channels)
        # The oldest published files lack this counter, which only averages without momentum need.
        counters = {name: value for name, value in self.state_dict().items() if name.endswith("num_batches_tracked")}
        load_exactly(self, counters | state, "resnet18", self.conv1.out_channels)


def _layer(in_channels: int, channels: int, stride: int, dilation: int) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(in_channels, channels, stride, dilation), BasicBlock(channels, channels, 1, dilation)
    )
