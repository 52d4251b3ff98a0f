"""Draw every loss on a small thin organ: what it is given, its gradient, and its value along a sweep."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from multilevel_loss import (
    BoundaryLoss,
    CombinedLoss,
    CrossEntropyLoss,
    DeepSupervision,
    DiceLoss,
    MLLoss,
    signed_distance_map,
)
from multilevel_loss import functional as mlf

FOLDER = Path(__file__).parent / "_generated"
HEIGHT, WIDTH = 60, 80
SHIFTS = range(-12, 13)
"""Pixels by which the sweep moves a prediction of the right shape."""

PUSH = LinearSegmentedColormap.from_list("push", ["#2166ac", "#92c5de", "#ffffff", "#f4a582", "#b2182b"])
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.05,
}


def arc(shift: int = 0) -> Tensor:
    """Return the organ (H, W) bool, five pixels thick, moved to the right."""
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    radius = ((y - 44) ** 2 + (x - 40 - shift) ** 2).sqrt()
    return ((radius - 24).abs() < 2.5) & (y < 42)


def mistaken() -> Tensor:
    """Return a prediction (H, W) bool of the organ: moved by two pixels, with a gap, and a false piece far away."""
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    piece = (y - 50) ** 2 + (x - 68) ** 2 < 20
    return (arc(2) & ~((x - 34).abs() < 5)) | piece


def signed(mask: Tensor) -> Tensor:
    """Return the signed distance map (1, 1, H, W), negative inside, zero between pixels."""
    return signed_distance_map(mask[None].byte(), boundary="midpoint")


def as_logits(mask: Tensor) -> Tensor:
    """Return logits whose probability falls over a few pixels at the border of the mask."""
    return (-1.5 * signed(mask)).clamp(-5, 5)


def as_boundary_logits(mask: Tensor) -> Tensor:
    """Return logits of the boundary of the mask."""
    return (2 - 1.5 * signed(mask).abs()).clamp_min(-5)


def as_field(mask: Tensor) -> Tensor:
    """Return the negative of the signed distance map in pixels."""
    return -signed_distance_map(mask[None].byte())


def as_scaled_field(mask: Tensor) -> Tensor:
    """Return that field scaled to [-1, 1] on either side, before the tanh of the losses that regress it."""
    return -signed_distance_map(mask[None].byte(), normalize="max").clamp(-0.99, 0.99).atanh()


TRUTH = arc()
TARGET = TRUTH[None].long()
IMAGE = TRUTH + 0.25 * torch.randn(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


def _seeded(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a loss that draws the same points at every call."""
    return lambda x, target: loss(x, target, num_points=256, generator=torch.Generator().manual_seed(0))


def _multilevel(x: Tensor, target: Tensor) -> Tensor:
    boundary = BoundaryLoss(normalize="max", offset="optimal")
    return MLLoss(boundary=boundary)(x, target, generator=torch.Generator().manual_seed(0))


def _supervised(x: Tensor, target: Tensor) -> Tensor:
    """Return the Dice losses of a prediction and of what is left of it at half and at a quarter of the resolution."""
    return DeepSupervision(DiceLoss())([x, F.avg_pool2d(x, 2), F.avg_pool2d(x, 4)], target)


def _of_halves(x: Tensor, _: Tensor) -> Tensor:
    """Return the generalized Wasserstein Dice loss of an organ of two parts, the right one predicted as the left."""
    right = torch.arange(WIDTH) > WIDTH // 2
    logits = torch.cat([torch.zeros_like(x), x, torch.full_like(x, -5.0)], 1)
    return mlf.generalized_wasserstein_dice_loss(
        logits, TARGET + (TARGET * right), distances=[[0, 1, 1], [1, 0, 0.5], [1, 0.5, 0]]
    )


Loss = Callable[[Tensor, Tensor], Tensor]
SUFFIX = "_loss"
GIVEN: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "boundary_regression": ("predicted distances", as_field),
    "sdf_regression": ("predicted distances", as_scaled_field),
    "dice_sdf": ("predicted distances", as_scaled_field),
    "ce_ce": ("predicted boundary", as_boundary_logits),
    "nested_level_set": ("predicted boundary", as_boundary_logits),
}
"""What those losses are given, or their boundary heads, that do not take logits of a mask."""
LOGITS = ("prediction", as_logits)
WITH_IMAGE = {"chan_vese", "mumford_shah", "geodesic_active_contour"}
WITH_BOUNDARY_HEAD = {"ce_ce", "nested_level_set"}
SPECIAL: dict[str, Loss] = {
    "uncertain_point": _seeded(mlf.uncertain_point_loss),
    "multilevel": _multilevel,
    "generalized_wasserstein_dice": _of_halves,
}
WRAPPERS: dict[str, Loss] = {
    "combined": CombinedLoss(
        {
            "dice": (DiceLoss(), 1.0),
            "ce": (CrossEntropyLoss(), 0.5),
            "boundary": (BoundaryLoss(normalize="max", offset="optimal"), 1.0),
        }
    ),
    "deep_supervision": _supervised,
}
"""Losses that are made of others."""
LEFT_OUT = {"multilevel_network"}
"""It has four outputs, each with a loss that is drawn by itself."""


def losses() -> dict[str, Loss]:
    """Return every loss by the name of its function and of its picture."""
    result: dict[str, Loss] = {}
    for function_name in mlf.__all__:
        name = function_name.removesuffix(SUFFIX)
        if name == function_name or name in LEFT_OUT:
            continue
        function = getattr(mlf, function_name)
        if name in WITH_IMAGE:
            function = partial(function, image=IMAGE[None, None])
        elif name in WITH_BOUNDARY_HEAD:
            function = partial(_boundary_head, function)
        result[name] = SPECIAL.get(name, function)
    return result


def _boundary_head(function: Callable[..., Tensor], x: Tensor, target: Tensor) -> Tensor:
    return function(as_logits(TRUTH), target, boundary_input=x)


def gradient(loss: Loss, x: Tensor) -> Tensor:
    """Return −∂E/∂x (H, W): where descent raises the logit, and where it lowers it."""
    x = x.clone().requires_grad_()
    return -torch.autograd.grad(loss(x, TARGET), x)[0][0, 0]


def draw(name: str, loss: Loss) -> None:
    """Write the picture of one loss."""
    what, make = GIVEN.get(name, LOGITS)
    figure, (given, slope, sweep) = plt.subplots(1, 3, figsize=(8, 1.9), layout="compressed")
    sweep.set_box_aspect(HEIGHT / WIDTH)
    if name in WITH_IMAGE:
        given.imshow(IMAGE, cmap="gray", vmin=-0.6, vmax=1.6)
        given.contour(mistaken(), [0.5], colors="#2166ac", linewidths=1)
        given.set_title("image, both contours")
    else:
        given.imshow(make(mistaken())[0, 0].sigmoid(), cmap="Greys", vmin=0, vmax=1.4)
        given.set_title(f"{what}, true contour")
    picture = draw_gradient(slope, gradient(loss, make(mistaken())))
    slope.set_title("what a step of descent does")
    bar = figure.colorbar(picture, ax=slope, shrink=0.9, aspect=14, extend="both", ticks=[*picture.get_clim(), 0])
    bar.ax.set_yticklabels(["lowers p", "raises p", "0"])
    bar.outline.set_linewidth(0.5)
    for axes in (given, slope):
        outline(axes)
    with torch.no_grad():
        values = [loss(make(arc(shift)), TARGET).item() for shift in SHIFTS]
    sweep.plot(SHIFTS, values, color="black", linewidth=1.2)
    sweep.axvline(0, color="0.75", linewidth=0.6, zorder=0)
    sweep.set_title("value when the true shape is moved")
    sweep.set_xlabel("pixels to the right", labelpad=1)
    sweep.yaxis.set_major_locator(MaxNLocator(4))
    figure.savefig(FOLDER / f"{name}.png", dpi=150)
    plt.close(figure)


def draw_gradient(axes: Axes, push: Tensor):
    """Draw a gradient on a symmetrical scale that a few extreme pixels do not set."""
    seen = push.abs()[push.abs() > push.abs().max() / 100]
    limit = float(np.quantile(seen, 0.98)) if seen.numel() else 1.0
    return axes.imshow(push, cmap=PUSH, vmin=-limit, vmax=limit)


def outline(axes: Axes) -> None:
    """Draw the true contour on an image without ticks."""
    axes.contour(TRUTH, [0.5], colors="black", linewidths=0.6)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)


def draw_overview(named: dict[str, Loss]) -> None:
    """Write one picture of all gradients."""
    columns = 5
    rows = -(-len(named) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(8.6, 1.5 * rows), layout="constrained")
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (name, loss) in zip(grid.flat, named.items(), strict=False):
        axes.set_axis_on()
        draw_gradient(axes, gradient(loss, GIVEN.get(name, LOGITS)[1](mistaken())))
        outline(axes)
        axes.set_title(name.replace("_", " "), fontsize=7)
    figure.savefig(FOLDER / "overview.png", dpi=150)
    plt.close(figure)


def is_current() -> bool:
    """Return whether the pictures are newer than the losses and this file."""
    sources = [Path(__file__), *Path(mlf.__file__).parent.rglob("*.py")]
    last = FOLDER / "overview.png"
    return last.is_file() and last.stat().st_mtime > max(source.stat().st_mtime for source in sources)


def main() -> None:
    """Write all pictures."""
    plt.switch_backend("agg")
    FOLDER.mkdir(exist_ok=True)
    torch.manual_seed(0)
    with plt.rc_context(STYLE):
        named = losses()
        for name, loss in (named | WRAPPERS).items():
            draw(name, loss)
        draw_overview(named)


if __name__ == "__main__":
    main()
