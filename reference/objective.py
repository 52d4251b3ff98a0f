"""What training minimizes: the loss of a model's predictions for one unit."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from multilevel_loss import BoundaryLoss, DiceLoss, MLLoss, MLNLoss, signed_distance_map, uncertain_points
from reference.config import TrainingConfig
from reference.data import Unit
from reference.models import Branches, CoarseToFine, MultiLevelNetwork, Prediction, Stage, inside
from reference.models.crop import image_coords


class Objective(nn.Module):
    """A model and its loss as one module: what a device computes of a step, and the gradients are averaged of.

    ω₁·coarse + ω₂·(region + α·boundary + β·pixel [+ γ·fusion])

    Region terms are Dice losses over the three slices together. Distances are in the smaller pixel side: with square
    pixels the paper's, whatever the resolution, and true to the shape of others.

    Args:
        model: of any name; one with branches is trained by :class:`MLNLoss`, any other by :class:`MLLoss`.
        config: holds the weights α, β, γ and the number of points.

    Source: eqs. 11 and 13.
    """

    def __init__(self, model: CoarseToFine, config: TrainingConfig) -> None:
        super().__init__()
        self.model = model
        self.num_points = config.num_points
        self.loss: MLLoss | MLNLoss
        if isinstance(model.fine, MultiLevelNetwork):
            self.loss = MLNLoss(
                alpha=config.alpha, beta=config.beta, gamma=config.gamma, mode="binary", return_components=True
            )
        else:
            self.loss = MLLoss(
                region=DiceLoss(average="micro"),
                boundary=BoundaryLoss(),  # the paper's distances are not bounded
                alpha=config.alpha,
                beta=config.beta,
                mode="multilabel",
                return_components=True,
            )

    def set_epoch(self, epoch: int) -> None:
        """Set the weights to those of an epoch; leave out the pixel branch and the fusion while both weigh nothing."""
        self.loss.set_epoch(epoch)
        if isinstance(self.model.fine, MultiLevelNetwork):
            self.model.fine.fused = any(self.loss.weights[name] != 0 for name in ("pixel", "fusion"))

    def forward(
        self, unit: Unit, *, stage: Stage, jitter: torch.Generator | None, points: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a unit, batched as one, and its unweighted terms, detached.

        Args:
            unit: image and label (1, 3, H, W), spacing (1, 2).
            stage: how the model crops; see :class:`CoarseToFine`.
            jitter: source of the crop's margins, None for fixed ones.
            points: source of the uncertain points.
        """
        label, pixels = unit["label"], unit["spacing"] / unit["spacing"].amin()
        prediction = self.model(unit["image"], label, stage=stage, jitter=jitter)
        if prediction.branches is None:
            loss, terms = self._multilevel(prediction, label, pixels, points)
        else:
            loss, terms = self._multilevel_network(prediction, prediction.branches, label, pixels)
        return loss, {name: term.detach() for name, term in terms.items()}

    def _multilevel(
        self, prediction: Prediction, label: Tensor, pixels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        coords = None
        if self.loss.weights["pixel"] != 0:
            points = uncertain_points(prediction.points, self.num_points, mode="multilabel", generator=generator)
            coords = image_coords(points, prediction.box, (label.shape[2], label.shape[3]))
        loss = self.loss(prediction.fine, label, coarse_input=prediction.coarse, spacing=pixels, point_coords=coords)
        return cast(tuple[Tensor, dict[str, Tensor]], loss)

    def _multilevel_network(
        self, prediction: Prediction, branches: Branches, label: Tensor, pixels: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        distance = None
        if self.loss.weights["boundary"] != 0:
            distance = inside(signed_distance_map(label, spacing=pixels), prediction.box).unsqueeze(1)
        # The unit as a volume of one class, so that its slices share one Dice loss.
        region, boundary, fusion, coarse, volume = (
            each.unsqueeze(1)
            for each in (branches.region, branches.boundary, branches.fusion, prediction.coarse, label)
        )
        loss = self.loss(
            region,
            boundary,
            branches.pixel.flatten(1).unsqueeze(1),
            fusion,
            volume,
            point_coords=_in_every_slice(branches.point_coords),
            distance_map=distance,
            coarse_input=coarse,
        )
        return cast(tuple[Tensor, dict[str, Tensor]], loss)


def _in_every_slice(coords: Tensor) -> Tensor:
    """Return the points (B, P, 2) of a unit as (B, 3·P, 3) in its volume, the first slice's first."""
    count = coords.shape[1]
    depth = (torch.arange(3, device=coords.device) + 0.5) / 3
    return torch.cat([coords.repeat(1, 3, 1), depth.repeat_interleave(count).expand(len(coords), -1).unsqueeze(2)], 2)
