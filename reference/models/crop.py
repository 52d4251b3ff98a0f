"""Boxes around what a unit of slices shows, crops by them and the way back."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

MARGIN = 20
MIN_SIDE = 9
"""Pixels a box side has at least: normalization needs two values, at 1/8 of the image where the stride is that."""

BACKGROUND_LOGIT = -30.0
"""Logit outside the crop: background for certain (probability 1e-13), yet finite in half precision."""


class Box(NamedTuple):
    """A half-open rectangle of pixels: rows top..bottom-1, columns left..right-1."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left


class Margins(NamedTuple):
    """Pixels that a box grows on each side."""

    top: int = MARGIN
    bottom: int = MARGIN
    left: int = MARGIN
    right: int = MARGIN


def jittered_margins(generator: torch.Generator) -> Margins:
    """Return the margins of the crop jitter: with probability 0.5 the fixed ones, else each uniform in 0..2·MARGIN."""
    draw = torch.randint(2 * MARGIN + 1, (4,), generator=generator).tolist()
    fixed = torch.rand((), generator=generator) < 0.5
    return Margins() if fixed else Margins(*draw)


def bounding_box(mask: Tensor, margins: Margins = Margins()) -> Box | None:  # noqa: B008 (a constant)
    """Return the box of the union of a unit's slices, grown by `margins` and clipped to the image; None when empty.

    Args:
        mask: bool (..., H, W); the union is taken over the leading axes.
        margins: pixels to grow by. A side that stays under MIN_SIDE grows on, as far as the image goes.
    """
    union = mask.reshape(-1, *mask.shape[-2:]).any(0)
    rows = union.any(1).nonzero()
    if rows.numel() == 0:
        return None
    columns = union.any(0).nonzero()
    height, width = union.shape
    top, bottom = _side(int(rows[0]) - margins.top, int(rows[-1]) + 1 + margins.bottom, height)
    left, right = _side(int(columns[0]) - margins.left, int(columns[-1]) + 1 + margins.right, width)
    return Box(top, bottom, left, right)


def _side(start: int, stop: int, length: int) -> tuple[int, int]:
    start, stop = max(start, 0), min(stop, length)
    stop = min(max(stop, start + MIN_SIDE), length)
    return max(min(start, stop - MIN_SIDE), 0), stop


def crop(x: Tensor, box: Box) -> Tensor:
    """Return the part of x (..., H, W) inside `box`."""
    return x[..., box.top : box.bottom, box.left : box.right]


def uncrop(x: Tensor, box: Box, size: tuple[int, int], fill: float = BACKGROUND_LOGIT) -> Tensor:
    """Return a field (..., *size) that is x (..., h, w) inside `box` and `fill` elsewhere."""
    height, width = size
    return F.pad(x, (box.left, width - box.right, box.top, height - box.bottom), value=fill)


def inside(x: Tensor, box: Box) -> Tensor:
    """Return the field x (..., H, W) inside `box` and 0 elsewhere."""
    return uncrop(crop(x, box), box, (x.shape[-2], x.shape[-1]), fill=0.0)


def image_coords(coords: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """Return the image's coordinates of points of a crop.

    Args:
        coords: (B, P, 2), x first, in [0, 1] from edge to edge of the crop.
        box: where the crop was cut.
        size: height and width of the image.

    Returns:
        The same points in [0, 1] of the image, none further out than the centres of the crop's outermost pixels, where
        interpolation would mix in what lies outside.
    """
    start = coords.new_tensor([box.left, box.top])
    stop = coords.new_tensor([box.right, box.bottom])
    pixels = start + coords * (stop - start)
    return pixels.clamp(start + 0.5, stop - 0.5) / coords.new_tensor([size[1], size[0]])
