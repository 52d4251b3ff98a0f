from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from reference.__main__ import app
from reference.models import build_model
from reference.models.costs import PAPER, Cost, PaperCost, count_coarse_to_fine


@pytest.fixture(scope="module")
def costs() -> dict[tuple[int, str], Cost]:
    return {(row.table, row.model): row.count() for row in PAPER}


def test_the_model_of_the_multi_level_loss(costs: dict[tuple[int, str], Cost]) -> None:
    assert costs[8, "MLL"].parameters == 30_631_038
    assert costs[8, "MLL"].flops == pytest.approx(1.489e11, rel=0.005)


@pytest.mark.parametrize(
    ("model", "flops"),
    [
        ("conv1 2, max-pool 2", 1.344e11),
        ("conv1 2, max-pool N/A", 1.486e11),
        ("conv1 1, max-pool 2", 1.489e11),
        ("conv1 1, max-pool N/A", 2.074e11),
    ],
)
def test_table_2(costs: dict[tuple[int, str], Cost], model: str, flops: float) -> None:
    assert 3 * costs[2, model].parameters == 91_893_114
    assert costs[2, model].flops == pytest.approx(flops, rel=0.005)


def test_the_multi_level_structural_network(costs: dict[tuple[int, str], Cost]) -> None:
    cost = costs[8, "MLN"]
    assert 35.5e6 <= cost.parameters <= 36.5e6
    assert cost.flops == pytest.approx(16.9e10, rel=0.05)


def test_the_recurrent_saliency_transformation_network(costs: dict[tuple[int, str], Cost]) -> None:
    cost = costs[8, "RSTN"]
    assert cost.parameters == pytest.approx(268.56e6, rel=1e-4)
    assert cost.flops == pytest.approx(43.9e10, rel=0.005)


def test_the_v_net_of_monai_is_larger_than_the_paper_s(costs: dict[tuple[int, str], Cost]) -> None:
    assert costs[8, "V-Net"].parameters == 45_593_892
    assert costs[8, "V-Net"].flops == pytest.approx(72.3e10, rel=0.005)


@pytest.mark.parametrize("row", [row for row in PAPER if row.model != "V-Net"], ids=lambda row: row.model)
def test_costs_are_those_that_the_paper_prints(row: PaperCost, costs: dict[tuple[int, str], Cost]) -> None:
    cost = costs[row.table, row.model]
    assert row.views * cost.parameters == pytest.approx(row.printed.parameters, rel=0.0125)
    assert cost.flops == pytest.approx(row.printed.flops, rel=0.05)


@pytest.mark.parametrize("width", [1, 3])
def test_flops_are_two_a_multiply_add(width: int) -> None:
    """Every convolution by hand: twice its weights at each position of its result."""
    with torch.device("meta"):
        model = build_model("mll", width=width)
    expected = 2 * 512**2 * sum(conv.weight.numel() for conv in (model.saliency.conv1, model.saliency.conv2))
    for net, first in ((model.coarse, 256), (model.fine, 100)):
        sides = {"backbone.conv1": first, "backbone.layer1": first // 2, "aspp.pooling": 1}
        for name, module in net.named_modules():
            if isinstance(module, nn.Conv2d):
                side = next((sides[part] for part in sides if name.startswith(part)), first // 4)
                expected += 2 * side**2 * module.weight.numel()
    assert count_coarse_to_fine(partial(build_model, "mll", width=width)).flops == expected


def test_command() -> None:
    result = CliRunner().invoke(app, ["summary"], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert "MLL 1 30.631 31 -1.2% 149.0 149 +0.0%" in lines
    assert "MLN 1 36.035 36 +0.1% 169.8 169 +0.5%" in lines
    assert "RSTN 1 268.556 269 -0.2% 438.7 441 -0.5%" in lines
    assert "conv1 1, max-pool N/A 3 91.893 92 -0.1% 207.5 207 +0.3%" in lines
