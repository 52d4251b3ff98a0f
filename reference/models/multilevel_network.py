"""The fine model of the multi-level structural network: region, boundary and pixel branches on one backbone, fused."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from multilevel_loss.points import sample_points, uncertain_grid_points
from reference.models.branches import Branches
from reference.models.deeplab import ASPP, Classifier, upsample
from reference.models.guidance import ConvolutionalFusion, SaliencyGuidance
from reference.models.imagenet import Weights
from reference.models.pixel import PointTransformer, SharedMLPs
from reference.models.resnet import ResNet18

PixelModule = Literal["transformer", "mlps"]
FusionModule = Literal["guidance", "convolutions"]


class Regressor(nn.Conv2d):
    """The 1×1 convolution from features to distances, whose weights start at random in size and sign.

    Most distances are far below 0, and features are not negative. Weights that start near 0 are all drawn below 0
    before they tell places apart, and no distance above 0, inside, can then be answered for many epochs.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)


class MultiLevelNetwork(nn.Module):
    """Predictions of all branches for an image, at its size.

    The region branch is the ASPP and the classifier of :class:`DeepLab`; the boundary branch has its own, and regresses
    −Φ. Where the region branch is most undecided, the pixel branch takes the features of the first block. The features
    of all, 4·`width` wide, are fused at the size of the image, those of the points among zeros.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits.
        width: channels of the first block; the paper's is 64.
        conv1_stride: see :class:`ResNet18`.
        max_pool: likewise.
        num_points: N, the uncertain points of an image; one of fewer pixels has them all.
        pixel_module: what the points pass, the "transformer" or, in Table 9, four "mlps".
        fusion_module: what fuses the branches, saliency "guidance" or, in Table 9, four "convolutions".

    Attributes:
        fused: whether pixel branch and fusion take part. The paper leaves them out in the first epochs, when β and γ
            are 0: set it to False for those. Logits of the fusion are then those of the region branch, in training and
            in testing. It is kept with the parameters, in `state_dict`, so that a model that was saved in those epochs
            predicts by its region branch, too.

    Source: §3 and Fig. 4.
    """

    def __init__(
        self,
        in_channels: int = 6,
        out_channels: int = 3,
        *,
        width: int = 64,
        conv1_stride: int = 1,
        max_pool: bool = True,
        num_points: int = 2048,
        pixel_module: PixelModule = "transformer",
        fusion_module: FusionModule = "guidance",
    ) -> None:
        super().__init__()
        channels = 4 * width
        self.num_points = num_points
        self.fused = True
        self.backbone = ResNet18(in_channels, width=width, conv1_stride=conv1_stride, max_pool=max_pool)
        self.region_aspp = ASPP(self.backbone.out_channels, channels)
        self.region_classifier = Classifier(channels, out_channels)
        self.boundary_aspp = ASPP(self.backbone.out_channels, channels)
        self.boundary_regressor = Regressor(channels, out_channels)
        self.pixel = (PointTransformer if pixel_module == "transformer" else SharedMLPs)(width, channels)
        self.pixel_classifier = Classifier(channels, out_channels)
        self.fusion = (SaliencyGuidance if fusion_module == "guidance" else ConvolutionalFusion)(channels, out_channels)

    def get_extra_state(self) -> Tensor:
        """Return `fused` as what :meth:`state_dict` holds."""
        return torch.tensor(self.fused, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Take `fused` from a state dict."""
        self.fused = bool(state)

    def forward(self, image: Tensor) -> Branches:
        """Return the predictions for an image (B, in_channels, H, W)."""
        size = (image.shape[2], image.shape[3])
        first, last = self.backbone.features(image)
        region, boundary = self.region_aspp(last), self.boundary_aspp(last)
        region_logits = upsample(self.region_classifier(region), size)
        distance = upsample(self.boundary_regressor(boundary), size)
        if not self.fused:
            pixel_logits = region_logits.new_zeros(*region_logits.shape[:2], 0)
            coords = region_logits.new_zeros(len(image), 0, 2, dtype=torch.float32)
            return Branches(region_logits, distance, pixel_logits, coords, region_logits)
        coords = uncertain_grid_points(region_logits, self.num_points, mode="multilabel")
        points = self.pixel(sample_points(first, coords).transpose(1, 2)).transpose(1, 2)
        pixel_logits = self.pixel_classifier(points.unsqueeze(3)).squeeze(3)
        scattered = _scatter(points, coords, size)
        fusion = self.fusion(upsample(region, size), upsample(boundary, size), scattered)
        return Branches(region_logits, distance, pixel_logits, coords, fusion)

    def load_imagenet(self, weights: Weights = None) -> None:
        """Load ImageNet weights into the backbone; see :meth:`ResNet18.load_imagenet`."""
        self.backbone.load_imagenet(weights)


def _scatter(points: Tensor, coords: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a field (B, C, *size) that is `points` (B, C, P) in the pixels of `coords` (B, P, 2) and 0 elsewhere."""
    height, width = size
    column, row = (coords * coords.new_tensor([width, height])).long().unbind(2)
    index = (row * width + column).unsqueeze(1).expand_as(points)
    flat = points.new_zeros(*points.shape[:2], height * width).scatter(2, index, points)
    return flat.view(*points.shape[:2], height, width)
