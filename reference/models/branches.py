"""What the branches of the multi-level structural network predict, on a crop and on the image that it is cut from."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from reference.models.crop import Box, image_coords, uncrop


class Branches(NamedTuple):
    """Predictions of all branches, each at the size (H, W) of the crop or of the image.

    They are what :class:`multilevel_loss.MLNLoss` takes.

    Attributes:
        region: logits (B, 3, H, W).
        boundary: (B, 3, H, W), −Φ in pixels, positive inside; 0 outside the crop.
        pixel: logits (B, 3, P) at the uncertain points; P = 0 while the branch is left out.
        point_coords: (B, P, 2) in [0, 1], x first: the uncertain points, centres of pixels.
        fusion: logits (B, 3, H, W); those of the region branch while the fusion is left out.
    """

    region: Tensor
    boundary: Tensor
    pixel: Tensor
    point_coords: Tensor
    fusion: Tensor

    def uncrop(self, box: Box, size: tuple[int, int]) -> Branches:
        """Return the predictions for the image of `size`, of which these are for the crop by `box`.

        Outside the box the logits are those of background, so that organ there counts as missed. A distance is not
        known there: the boundary is 0, to be compared with a distance map that :func:`inside` has set to 0, too. Every
        summand of the boundary loss is then 0 outside the box, and its mean is over the whole image, as in the other
        losses.
        """
        region, fusion = (uncrop(logits, box, size) for logits in (self.region, self.fusion))
        return Branches(
            region=region,
            boundary=uncrop(self.boundary, box, size, fill=0.0),
            pixel=self.pixel,
            point_coords=image_coords(self.point_coords, box, size),
            fusion=fusion,
        )
