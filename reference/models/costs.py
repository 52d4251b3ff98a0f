"""Parameters and FLOPs of the models, and those that the paper prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from reference.baselines.vnet import PATCH_SIZE, vnet
from reference.models.build import build_model
from reference.models.coarse_to_fine import CoarseToFine

SLICE, CROP = 512, 100
"""Pixels a side of what the coarse and the fine model see, where the paper counts."""


class Cost(NamedTuple):
    """What a model costs.

    Attributes:
        parameters: learnable numbers.
        flops: of one slice and its crop, or of one patch: two a multiply-add, of convolutions and matrix products.
    """

    parameters: int
    flops: int


class Printed(NamedTuple):
    """What the paper prints of a cost; its "multiply-adds" are FLOPs as :class:`Cost` counts them."""

    parameters: float
    flops: float


@dataclass(frozen=True)
class PaperCost:
    """A row of the paper.

    Args:
        table: its number.
        model: its name there.
        views: models whose parameters are counted together; the FLOPs are always those of one.
        printed: what it says.
        count: what ours costs, one view.
    """

    table: int
    model: str
    views: int
    printed: Printed
    count: Callable[[], Cost]


def count_coarse_to_fine(build: Callable[[], CoarseToFine]) -> Cost:
    """Count a coarse-to-fine model of one view, without memory for its weights."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = build().eval()
        image = torch.empty(1, 3, SLICE, SLICE)
        model.fine_input(image, model.coarse_logits(image).sigmoid())
        model.fine_logits(torch.empty(1, 6, CROP, CROP))
    return Cost(sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops())


def count_vnet() -> Cost:
    """Count V-Net and one of its patches, likewise."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = vnet().eval()
        model(torch.empty(1, 1, *PATCH_SIZE))
    return Cost(sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops())


_MLL = partial(build_model, "mll")
_MLN = partial(build_model, "mln")

PAPER = (
    PaperCost(8, "MLL", 1, Printed(3.1e7, 14.9e10), partial(count_coarse_to_fine, _MLL)),
    PaperCost(8, "MLN", 1, Printed(3.6e7, 16.9e10), partial(count_coarse_to_fine, _MLN)),
    PaperCost(8, "RSTN", 1, Printed(26.9e7, 44.1e10), partial(count_coarse_to_fine, partial(build_model, "rstn"))),
    PaperCost(8, "V-Net", 1, Printed(1.9e7, 68.4e10), count_vnet),
    *(
        PaperCost(
            2,
            f"conv1 {stride}, max-pool {2 if max_pool else 'N/A'}",
            3,
            Printed(9.2e7, flops),
            partial(count_coarse_to_fine, partial(_MLL, conv1_stride=stride, max_pool=max_pool)),
        )
        for stride, max_pool, flops in (
            (2, True, 1.34e11),
            (2, False, 1.49e11),
            (1, True, 1.49e11),
            (1, False, 2.07e11),
        )
    ),
    *(
        PaperCost(9, name, 1, Printed(parameters, flops), partial(count_coarse_to_fine, build))
        for name, parameters, flops, build in (
            (
                "w/o pixel and guidance modules",
                4.0e7,
                2.5e11,
                partial(_MLN, pixel_module="mlps", fusion_module="convolutions"),
            ),
            ("w/o guidance module", 4.0e7, 2.5e11, partial(_MLN, fusion_module="convolutions")),
            ("w/o pixel module", 3.6e7, 1.7e11, partial(_MLN, pixel_module="mlps")),
            ("MLN", 3.6e7, 1.7e11, _MLN),
        )
    ),
)
"""Every row of which the paper prints parameters and FLOPs and which is built here."""
