"""The benchmark of the losses: every loss is in it, its gate holds and can fail, its files say what was measured."""

import json
import time
from importlib.metadata import version

import pytest
import torch
from typer.testing import CliRunner

import multilevel_loss
from benchmarks import losses
from benchmarks.harness import measure, metadata, peak_memory
from benchmarks.losses import LOSSES, Peer, make_case, makers_of, ours, time_losses
from multilevel_loss.functional import dice_loss

CPU = torch.device("cpu")


def test_every_public_loss_has_a_row():
    public = {name for name in multilevel_loss.__all__ if name.endswith("Loss") or name == "DeepSupervision"}
    assert public == {name.partition("(")[0].partition(",")[0].partition(" of ")[0] for name in LOSSES}


@pytest.mark.parametrize("shape", ["1x1x20x24", "2x3x13x10x9"])
def test_peers_agree_or_say_why_not(shape):
    case = make_case(shape, CPU)
    for name in LOSSES:
        makers = makers_of(name, case)
        own, _ = makers.pop("ours", (None, ""))
        for maker, (loss, differs) in makers.items():
            if not differs:
                assert losses.difference(case, own, loss) <= losses.TOLERANCE, (name, maker)


def test_a_peer_of_another_value_is_not_timed(monkeypatch):
    half = Peer(lambda case: lambda x: dice_loss(x, case.labels) / 2)
    monkeypatch.setitem(LOSSES, "DiceLoss", (ours(dice_loss), {"half": half}))
    with pytest.raises(ValueError, match=r"DiceLoss of half on 1x1x16x16: differs from ours by 1"):
        time_losses("DiceLoss", make_case("1x1x16x16", CPU), "1x1x16x16", repeats=1)


def test_the_command_prints_a_table_and_writes_json(tmp_path):
    out = tmp_path / "losses.json"
    arguments = ["--shape", "1x3x16x18", "--loss", "DiceLoss", "--loss", "MLLoss", "--repeats", "2", "--out", str(out)]
    result = CliRunner().invoke(losses.app, arguments)
    assert result.exit_code == 0, result.output
    assert "1x3x16x18" in result.output
    content = json.loads(out.read_text())
    assert content["metadata"]["torch"] == version("torch")
    rows = {(row["loss"], row["maker"]): row for row in content["rows"]}
    assert set(rows) == {
        ("DiceLoss", "ours"),
        ("DiceLoss", "MONAI"),
        ("DiceLoss", "kornia"),
        ("MLLoss", "ours"),
        ("MLLoss", "MONAI + torch"),
    }
    for row in rows.values():
        assert 0 < row["timing"]["lower"] <= row["timing"]["median"] <= row["timing"]["upper"]
        assert row["logits"] == 4 * 3 * 16 * 18
    assert rows["DiceLoss", "MONAI"]["difference"] < 1e-5
    assert rows["MLLoss", "MONAI + torch"]["differs"] == "has another map inside, draws points of its own"


def test_an_unknown_loss_is_refused():
    result = CliRunner().invoke(losses.app, ["--loss", "NoLoss"])
    assert result.exit_code == 2
    assert "'NoLoss'" in result.output


def test_steps_take_turns():
    calls = []
    timings = measure({name: lambda name=name: calls.append(name) for name in "ab"}, repeats=3, warmup=1)
    assert calls == [*"ab", *"ababab"]
    assert timings["a"].repeats == 3


def test_a_slow_step_is_repeated_less_than_a_quick_one():
    timings = measure({"slow": lambda: time.sleep(0.02), "quick": lambda: None}, repeats=4, limit=0.03)
    assert {name: timing.repeats for name, timing in timings.items()} == {"slow": 2, "quick": 4}


def test_circumstances_name_the_device_that_was_measured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"the GPU {device.index}")
    assert metadata(device=torch.device("cuda", 1))["device"] == "the GPU 1"
    assert "GPU" not in metadata(device=CPU)["device"]


def test_peak_memory_counts_what_is_held_at_once():
    mebibyte = 2**20

    def step():
        first = torch.ones(32 * mebibyte, dtype=torch.uint8)
        second = first + 1
        del first
        return second + 1

    peak = peak_memory(step, CPU)
    if peak is None:
        pytest.skip("peak memory is measured on Linux alone")
    assert peak == pytest.approx(64 * mebibyte, rel=0.05)
