"""The benchmark of a training step: every network with every loss, and shares that are those of the times."""

import json

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import training_step
from benchmarks.losses import make_case


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_the_command_writes_the_share_of_every_loss(tmp_path, precision):
    out = tmp_path / "training_step.json"
    arguments = ["--shape", "1x1x64x64", "--classes", "3", "--precision", precision, "--repeats", "2"]
    result = CliRunner().invoke(training_step.app, [*arguments, "--out", str(out)])
    assert result.exit_code == 0, result.output
    content = json.loads(out.read_text())
    assert {key: content[key] for key in ("shape", "classes", "precision")} == {
        "shape": "1x1x64x64",
        "classes": 3,
        "precision": precision,
    }
    assert [(row["network"], row["loss"]) for row in content["rows"]] == [
        (network, loss) for network in training_step.NETWORKS for loss in training_step.LOSSES
    ]
    for row in content["rows"]:
        own, rest = row["timing"]["median"], row["rest"]["median"]
        assert row["share"] == own / (own + rest)
        assert 0 < row["share"] < 1


def test_a_step_trains_the_network():
    network = training_step.NETWORKS["BasicUNet"](spatial_dims=2, in_channels=1, out_channels=2)
    before = [parameter.clone() for parameter in network.parameters()]
    step = training_step.step_without_loss(network, make_case("1x2x32x32", torch.device("cpu")), torch.float32)
    step()
    assert not all(old.equal(new) for old, new in zip(before, network.parameters(), strict=True))
