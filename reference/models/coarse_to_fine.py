"""The coarse-to-fine model of one view: coarse segmentation, saliency transformation, fine segmentation of the crop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multilevel_loss._checks import check_choice
from reference.models.branches import Branches
from reference.models.crop import Box, Margins, bounding_box, crop, jittered_margins, uncrop
from reference.models.deeplab import DeepLab, upsample
from reference.models.fcn import FCN8s
from reference.models.imagenet import Weights
from reference.models.multilevel_network import MultiLevelNetwork

Stage = Literal["S", "I", "J"]


class Prediction(NamedTuple):
    """What the model says of a unit of three slices.

    Attributes:
        coarse: logits (1, 3, H, W) of the coarse model.
        fine: logits (1, 3, H, W) of the fine model, background outside the box.
        points: final logits (1, 3, h, w) of the fine model, on the box, at its own resolution: of the MLL, 4× coarser
            than the image.
        box: where the fine model looked.
        branches: what the branches of the MLN predict, on the image; `fine` is their fusion. None of other models.
    """

    coarse: Tensor
    fine: Tensor
    points: Tensor
    box: Box
    branches: Branches | None


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
    """A coarse and a fine model, joined by the saliency transformation: one view; see :func:`build_model`.

    The coarse model segments the unit; the fine one segments the crop around that, from the image multiplied by the
    saliency of the coarse segmentation, and the image itself.

    Args:
        coarse: from units (B, 3, H, W) to logits (B, 3, h, w).
        fine: from crops (B, 6, H, W) to logits (B, 3, h, w), or to the predictions of its branches.
        config: what :func:`build_model` makes the same network from, with JSON's types.

    Example:
        >>> from reference.models import build_model
        >>> model = build_model("mll", width=4, generator=torch.Generator().manual_seed(0)).eval()
        >>> prediction = model(torch.rand(1, 3, 64, 80), stage="J")
        >>> prediction.fine.shape
        torch.Size([1, 3, 64, 80])

    Source: sections 2.2, 2.3 and 4.2.
    """

    def __init__(
        self,
        coarse: DeepLab | FCN8s,
        fine: DeepLab | MultiLevelNetwork | FCN8s,
        config: Mapping[str, str | int | bool],
    ) -> None:
        super().__init__()
        self.config = dict(config)
        self.coarse = coarse
        self.saliency = SaliencyTransformation()
        self.fine = fine

    def load_imagenet(self, weights: Weights = None) -> None:
        """Load torchvision's ImageNet weights into both models: of `resnet18`, or of `vgg16` for the RSTN.

        See :meth:`ResNet18.load_imagenet` and :meth:`VGG16.load_imagenet`.
        """
        for model in (self.coarse, self.fine):
            model.load_imagenet(weights)

    def coarse_logits(self, image: Tensor) -> Tensor:
        """Return the coarse model's logits (B, 3, H, W) of units (B, 3, H, W)."""
        return upsample(self.coarse(image), (image.shape[2], image.shape[3]))

    def fine_input(self, image: Tensor, probability: Tensor) -> Tensor:
        """Return what the fine model sees (B, 6, H, W): the image times its saliency, and the image."""
        return torch.cat([image * self.saliency(probability), image], dim=1)

    def fine_logits(self, seen: Tensor) -> Tensor:
        """Return the fine model's final logits (B, 3, h, w) of crops (B, 6, h, w) of what :meth:`fine_input` returns.

        With branches they are those of the fusion, or of the region branch while the fusion is left out.
        """
        output = self.fine(seen)
        return upsample(output.fusion if isinstance(output, Branches) else output, (seen.shape[2], seen.shape[3]))

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
            The logits of both models, and the predictions of the fine one's branches.

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
        output = self.fine(crop(seen, box))
        if isinstance(output, Branches):
            branches = output.uncrop(box, size)
            return Prediction(coarse, branches.fusion, output.fusion, box, branches)
        fine = uncrop(upsample(output, box.size), box, size)
        return Prediction(coarse, fine, output, box, None)
