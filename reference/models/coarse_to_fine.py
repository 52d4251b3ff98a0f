"""The coarse-to-fine model of one view: coarse segmentation, saliency transformation, fine segmentation of the crop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multilevel_loss._checks import check_choice
from reference.models.crop import Box, Margins, bounding_box, crop, jittered_margins, uncrop
from reference.models.deeplab import DeepLab, upsample

Stage = Literal["S", "I", "J"]


class Prediction(NamedTuple):
    """What the model says of a unit of three slices.

    Attributes:
        coarse: logits (1, 3, H, W) of the coarse model.
        fine: logits (1, 3, H, W) of the fine model, background outside the box.
        points: final logits (1, 3, h, w) of the fine model, on the box, 4× coarser than the image.
        box: where the fine model looked.
    """

    coarse: Tensor
    fine: Tensor
    points: Tensor
    box: Box


class SaliencyTransformation(nn.Module):
    """From probabilities (B, 3, H, W) to the factors (B, 3, H, W) that the image is multiplied by.

    It starts near the identity: every factor near 1, every hidden unit active.

    Source: Yu et al., Recurrent saliency transformation network, CVPR 2018, with the paper's kernels, 5×5 then 3×3.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 3, 5, padding=2)
        self.conv2 = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, probability: Tensor) -> Tensor:
        """Return the factors, of the shape of `probability`."""
        factors: Tensor = self.conv2(F.relu(self.conv1(probability)))
        return factors


class CoarseToFine(nn.Module):
    """The paper's model of one view, 30,631,038 parameters at its width.

    The coarse model segments the unit at out_stride 8; the fine one, at out_stride 4, segments the crop around that,
    from the image multiplied by the saliency of the coarse segmentation, and the image itself.

    Args:
        width: channels of the first block of both backbones. 64, the paper's, is the ResNet-18 that ImageNet weights
            fit; a narrower model trains on a CPU.
        generator: source of the initial weights; torch's own when None.

    Example:
        >>> model = CoarseToFine(width=4, generator=torch.Generator().manual_seed(0)).eval()
        >>> prediction = model(torch.rand(1, 3, 64, 80), stage="J")
        >>> prediction.fine.shape
        torch.Size([1, 3, 64, 80])

    Source: sections 2.2, 2.3 and 4.2.
    """

    def __init__(self, width: int = 64, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.width = width
        self.coarse = DeepLab(3, 3, width=width)
        self.saliency = SaliencyTransformation()
        self.fine = DeepLab(6, 3, width=width, conv1_stride=1)
        self._initialize(generator)

    def _initialize(self, generator: torch.Generator | None) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for classifier in (self.coarse.classifier, self.fine.classifier):
            nn.init.normal_(classifier.weight, std=0.01, generator=generator)
        for name, parameter in self.saliency.named_parameters():
            if name.endswith("bias"):
                nn.init.ones_(parameter)
            else:
                nn.init.normal_(parameter, std=0.01, generator=generator)

    def load_imagenet(self, weights: Mapping[str, Tensor] | str | Path) -> None:
        """Load torchvision's ImageNet weights of `resnet18` into both backbones; see :class:`ResNet18`."""
        for model in (self.coarse, self.fine):
            model.backbone.load_imagenet(weights)

    def coarse_logits(self, image: Tensor) -> Tensor:
        """Return the coarse model's logits (B, 3, H, W) of units (B, 3, H, W)."""
        return upsample(self.coarse(image), (image.shape[2], image.shape[3]))

    def fine_input(self, image: Tensor, probability: Tensor) -> Tensor:
        """Return what the fine model sees (B, 6, H, W): the image times its saliency, and the image."""
        return torch.cat([image * self.saliency(probability), image], dim=1)

    def forward(
        self, image: Tensor, label: Tensor | None = None, *, stage: Stage = "J", jitter: torch.Generator | None = None
    ) -> Prediction:
        """Segment one unit coarsely and, in its box, finely.

        Args:
            image: (1, 3, H, W) in [0, 1], three neighbouring slices.
            label: (1, 3, H, W), 1 where the organ is; the stages S and I need it.
            stage: "S" crops by the label and shows the fine model the raw image, so that both models train apart;
                "I" crops by the label and shows it the saliency; "J" crops by the coarse segmentation, or by
                the label where that is empty, or not at all where both are.
            jitter: source of the random margins of training; None keeps them fixed.

        Returns:
            The logits of both models.

        Note:
            The box is not differentiable: the fine model's gradient reaches the coarse one through the saliency.
        """
        check_choice("stage", stage, get_args(Stage))
        if image.ndim != 4 or image.shape[:2] != (1, 3):
            raise ValueError(f"expected `image` to be one unit of slices (1, 3, H, W), got shape {tuple(image.shape)}")
        if label is None and stage != "J":
            raise ValueError(f"expected `label` in stage {stage}, which crops by it, got None")
        size = (image.shape[2], image.shape[3])
        margins = Margins() if jitter is None else jittered_margins(jitter)
        coarse = self.coarse_logits(image)
        box = bounding_box(coarse >= 0, margins) if stage == "J" else None
        if box is None and label is not None:
            box = bounding_box(label > 0.5, margins)
        box = box or Box(0, size[0], 0, size[1])
        seen = torch.cat([image, image], dim=1) if stage == "S" else self.fine_input(image, coarse.sigmoid())
        points = self.fine(crop(seen, box))
        fine = uncrop(upsample(points, box.size), box, size)
        return Prediction(coarse, fine, points, box)
