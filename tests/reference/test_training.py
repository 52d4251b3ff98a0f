"""Training follows the paper's course, survives whatever ends it, and is one training on any number of devices."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
import torch
from squares import CONFIG, SIZE, Squares, tiny
from torch import Tensor
from torch.utils.data import DistributedSampler

import reference.objective
from multilevel_loss import DiceLoss, StepAt, sample_points, signed_distance_map, uncertain_points
from reference.data import Unit
from reference.evaluation import dice_score
from reference.history import read_history
from reference.models import CoarseToFine, MultiLevelNetwork, inside
from reference.objective import Objective
from reference.training import Draws, load_model, seed_of, train

pytestmark = pytest.mark.usefixtures("one_thread")

PROGRAM = Path(__file__).with_name("squares.py")


def constant(coarse: float, fine: float) -> CoarseToFine:
    """A model that answers two logits, whatever it sees."""
    model = tiny()
    for classifier, logit in ((model.coarse.classifier, coarse), (model.fine.classifier, fine)):
        torch.nn.init.zeros_(classifier.weight)
        torch.nn.init.constant_(classifier.bias, logit)
    return model


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    train(tiny(), Squares(5), Squares(3), CONFIG, out)
    return out


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What other processes have trained: two at once, and those that were killed."""
    out = tmp_path_factory.mktemp("processes")
    command = [sys.executable, str(PROGRAM), str(out)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    return out


def assert_same_run(one: Path, two: Path) -> None:
    """Both folders hold the same training, but for its wall-clock times."""
    for name in ("last.ckpt", "best.ckpt"):
        a, b = (torch.load(out / name, weights_only=True) for out in (one, two))
        for state in (a, b):
            state["history"] = [{k: v for k, v in record.items() if k != "seconds"} for record in state["history"]]
        flat_a, flat_b = (torch.utils._pytree.tree_flatten(state) for state in (a, b))
        assert flat_a[1] == flat_b[1]
        for x, y in zip(flat_a[0], flat_b[0], strict=True):
            assert torch.equal(x, y) if isinstance(x, Tensor) else x == y


def test_log_and_checkpoints(uninterrupted: Path) -> None:
    assert {path.name for path in uninterrupted.iterdir()} == {"last.ckpt", "best.ckpt", "log.csv", "log.json"}
    log = json.loads((uninterrupted / "log.json").read_text(), parse_constant=pytest.fail)
    assert log["config"]["alpha"] == {"start": 0, "stop": 1, "step": 0.5}
    epochs = log["epochs"]
    assert [record["epoch"] for record in epochs] == [0, 1, 2, 3]
    assert "".join(record["stage"] for record in epochs) == "SIJJ"
    assert [record["learning_rate"] for record in epochs] == [3e-3, 1.5e-3, 1.5e-3, 3e-3]
    assert [record["alpha"] for record in epochs] == [0, 0.5, 1, 1]
    assert [record["beta"] for record in epochs] == [0, 0, 1, 1]
    assert [record["boundary"] is None for record in epochs] == [True, False, False, False]
    assert [record["pixel"] is None for record in epochs] == [True, True, False, False]
    for record in epochs:
        boundary = record["alpha"] * (record["boundary"] or 0)
        pixel = record["beta"] * (record["pixel"] or 0)
        fine = record["region"] + boundary + pixel
        assert record["loss"] == pytest.approx(record["coarse"] / 3 + fine * 2 / 3, rel=1e-5)
        assert 0 <= record["coarse_dsc"] <= 1
        assert 0 <= record["fine_dsc"] <= 1
        assert record["seconds"] > 0
    with (uninterrupted / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["loss"] for row in rows] == [str(record["loss"]) for record in epochs]
    assert rows[0]["pixel"] == ""


def test_best_checkpoint_is_of_the_best_epoch(uninterrupted: Path) -> None:
    last, best = (torch.load(uninterrupted / name, weights_only=True) for name in ("last.ckpt", "best.ckpt"))
    scores = [record["fine_dsc"] for record in last["history"]]
    assert len(best["history"]) == scores.index(max(scores)) + 1


def test_load_model(uninterrupted: Path) -> None:
    model = load_model(uninterrupted / "last.ckpt")
    state = torch.load(uninterrupted / "last.ckpt", weights_only=True)
    assert not model.training
    assert all(torch.equal(value, state["model"][name]) for name, value in model.state_dict().items())


def test_training_learns(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=6, learning_rate=2e-2, halving_epoch=8, reset_epoch=None)
    model = tiny(width=4)
    history = train(model, Squares(8), Squares(4), config, tmp_path)
    assert history[-1].region < 0.5 * history[0].region
    assert history[-1].coarse < 0.7 * history[0].coarse
    assert max(record.fine_dsc for record in history) > 0.6


@pytest.mark.parametrize("read", [1, 13])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, uninterrupted: Path, read: int) -> None:
    """Interrupted before the first step and in the third epoch (5 units each)."""
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), Squares(5, at=read, then=interrupt), Squares(3), CONFIG, tmp_path)
    history = train(tiny(seed=1), Squares(5), Squares(3), CONFIG, tmp_path, resume=True)
    assert len(history) == 4
    assert_same_run(tmp_path, uninterrupted)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("name", "epochs"), [("mll", 1), ("rstn", 1), ("mln", 2)])
def test_a_killed_run_resumes_as_if_it_had_not_been(tmp_path: Path, processes: Path, name: str, epochs: int) -> None:
    """Killed in the second epoch, or while writing the checkpoint of the third; that of RSTN drops out neurons."""
    killed = processes / name
    assert len(read_history(killed)) == epochs
    train(tiny(name, seed=1), Squares(5), Squares(3), CONFIG, killed, resume=True)
    train(tiny(name), Squares(5), Squares(3), CONFIG, tmp_path)
    assert_same_run(killed, tmp_path)
    assert not list(killed.glob(".*"))
    logs = [[replace(record, seconds=0.0) for record in read_history(out)] for out in (killed, tmp_path)]
    assert logs[0] == logs[1]


def test_sigterm_ends_after_the_step(tmp_path: Path, uninterrupted: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    training = Squares(5, at=7, then=lambda: os.kill(os.getpid(), signal.SIGTERM))
    path = re.escape(str(tmp_path / "last.ckpt"))
    with pytest.raises(SystemExit, match=rf"ended by SIGTERM in epoch 1 .*: {path} holds the training up to there"):
        train(tiny(), training, Squares(3), CONFIG, tmp_path)
    assert training.reads == 7
    assert signal.getsignal(signal.SIGTERM) == before
    train(tiny(), Squares(5), Squares(3), CONFIG, tmp_path, resume=True)
    assert_same_run(tmp_path, uninterrupted)


def test_resuming_writes_a_log_that_a_kill_left_behind(tmp_path: Path, uninterrupted: Path) -> None:
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    (tmp_path / "log.json").write_text("")
    train(tiny(), Squares(5), Squares(3), CONFIG, tmp_path, resume=True)
    assert [record.loss for record in read_history(tmp_path)] == [record.loss for record in read_history(uninterrupted)]


def test_two_processes_average_their_gradients(processes: Path) -> None:
    """Three epochs in two processes are, in one, steps on the mean gradient of two units, each drawn for its rank."""
    ranks = [torch.load(processes / "two" / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]

    model, units = tiny(), Squares(5)
    objective = Objective(model, CONFIG)
    optimizer = torch.optim.Adam(model.parameters(), CONFIG.learning_rate, fused=True)
    losses = []
    for epoch in range(3):
        objective.set_epoch(epoch)
        optimizer.param_groups[0]["lr"] = CONFIG.learning_rate_in(epoch)
        orders = [DistributedSampler(units, 2, rank, seed=seed_of("order", 0, epoch)) for rank in (0, 1)]
        assert sorted({*orders[0], *orders[1]}) == [0, 1, 2, 3, 4]
        generators = [
            [torch.Generator().manual_seed(seed_of(draws, 0, epoch, rank)) for draws in ("jitter", "points")]
            for rank in (0, 1)
        ]
        for pair in zip(*orders, strict=True):
            optimizer.zero_grad()
            for index, (jitter, points) in zip(pair, generators, strict=True):
                unit = {name: value[None] for name, value in units[index].items()}
                loss, terms = objective(unit, stage=CONFIG.stage(epoch), jitter=jitter, points=points)
                (loss / 2).backward()
                losses.append((loss.item(), terms["region"].item()))
            optimizer.step()
    for rank in ranks:
        for name, value in model.state_dict().items():
            torch.testing.assert_close(rank[name], value, rtol=0, atol=0)

    record = read_history(processes / "two")[-1]
    expected = torch.tensor(losses[-6:]).mean(0).tolist()
    assert (record.loss, record.region) == pytest.approx(expected, rel=1e-5)
    model.eval()
    scores = [
        dice_score(model(unit["image"][None]).coarse[0].numpy(force=True) >= 0, unit["label"].numpy() > 0.5)
        for unit in map(Squares(3).__getitem__, range(3))
    ]
    assert record.coarse_dsc == pytest.approx(sum(scores) / 3, rel=1e-6)


def test_processes_and_purposes_draw_apart() -> None:
    seeds = {
        seed_of(draws, seed, epoch, rank)
        for draws in get_args(Draws)
        for seed in (0, 1)
        for epoch in (0, 1)
        for rank in (0, 1)
    }
    assert len(seeds) == 32


def test_more_epochs_may_follow(tmp_path: Path, uninterrupted: Path) -> None:
    train(tiny(), Squares(5), Squares(3), replace(CONFIG, epochs=2), tmp_path)
    train(tiny(), Squares(5), Squares(3), CONFIG, tmp_path, resume=True)
    saved = [torch.load(out / "last.ckpt", weights_only=True)["model"] for out in (tmp_path, uninterrupted)]
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in saved[0])


def test_a_finished_run_resumes_to_itself(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1)
    first = train(tiny(), Squares(2), Squares(1), config, tmp_path)
    again = train(tiny(), Squares(2, at=1, then=interrupt), Squares(1), config, tmp_path, resume=True)
    assert first == again


def test_resume_without_a_checkpoint_starts(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1)
    assert len(train(tiny(), Squares(2), Squares(1), config, tmp_path / "new", resume=True)) == 1


def test_the_seed_decides(tmp_path: Path) -> None:
    losses = []
    for number, seed in enumerate((0, 0, 1)):
        config = replace(CONFIG, epochs=1, seed=seed)
        losses.append(train(tiny(), Squares(4), Squares(1), config, tmp_path / str(number))[0].loss)
    assert losses[0] == losses[1] != losses[2]


def test_variants_see_the_same_crops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison of losses is one of losses alone: order and jitter do not depend on which terms are computed."""
    boxes: list[list[object]] = []
    forward = CoarseToFine.forward

    def recording(self: CoarseToFine, *args: object, **options: object) -> object:
        prediction = forward(self, *args, **options)
        boxes[-1].append(prediction.box)
        return prediction

    monkeypatch.setattr(CoarseToFine, "forward", recording)
    for alpha, beta in ((0.0, 0.0), (1.0, 1.0)):
        boxes.append([])
        config = replace(CONFIG, epochs=2, coarse_box_epoch=2, alpha=alpha, beta=beta)
        train(tiny(), Squares(4), Squares(1), config, tmp_path / str(alpha))
    training = [[box for epoch in (0, 1) for box in run[5 * epoch : 5 * epoch + 4]] for run in boxes]
    assert training[0] == training[1]
    assert len(set(training[0])) > 2


def test_first_loss_by_hand(tmp_path: Path) -> None:
    """One step of stage S, α = ½: Dice over the unit of both models and the boundary term on the full image."""
    units = Squares(1, spacing=(3.0, 1.5), size=(70, 81))  # larger than the box
    config = replace(CONFIG, epochs=1, alpha=0.5, beta=0.0, jitter=False)
    record = train(tiny(), units, units, config, tmp_path)[0]
    unit = units[0]
    label = unit["label"][None]
    prediction = tiny()(unit["image"][None], label, stage="S")
    dice = DiceLoss(mode="multilabel", average="micro")
    distance = signed_distance_map(label, spacing=(2.0, 1.0))
    boundary = (prediction.fine.sigmoid() * distance).mean().item()
    assert record.coarse == pytest.approx(dice(prediction.coarse, label).item(), rel=1e-5)
    assert record.region == pytest.approx(dice(prediction.fine, label).item(), rel=1e-5)
    assert record.boundary == pytest.approx(boundary, rel=1e-4)


def test_points_are_those_of_the_crop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pixel term equals the cross entropy of the crop's final logits and its label at the drawn points."""

    drawn: list[tuple[Tensor, Tensor]] = []

    def recording(logits: Tensor, *args: object, **options: object) -> Tensor:
        coords = uncertain_points(logits, *args, **options)
        drawn.append((logits.detach(), coords))
        return coords

    monkeypatch.setattr(reference.objective, "uncertain_points", recording)
    units = Squares(1)
    config = replace(CONFIG, epochs=1, alpha=0.0, beta=1.0, jitter=False, num_points=512)
    record = train(tiny(), units, units, config, tmp_path)[0]
    ((logits, coords),) = drawn
    unit = units[0]
    box = tiny()(unit["image"][None], unit["label"][None], stage="S").box
    label = unit["label"][None, :, box.top : box.bottom, box.left : box.right]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        sample_points(logits, coords), sample_points(label, coords)
    )
    assert record.pixel == pytest.approx(expected.item(), rel=0.01)


def test_first_loss_of_the_network_by_hand(tmp_path: Path) -> None:
    """One step of stage S, all weights 1: the terms of eq. 13 over the unit, the boundary one within the box."""
    units = Squares(1, spacing=(3.0, 1.5), size=(70, 81))  # larger than the box
    config = replace(CONFIG, epochs=1, alpha=1.0, beta=1.0, gamma=1.0, jitter=False)
    model = partial(tiny, "mln", num_points=512)
    record = train(model(), units, units, config, tmp_path)[0]
    unit = units[0]
    label = unit["label"][None]
    prediction = model()(unit["image"][None], label, stage="S")
    branches = prediction.branches
    assert branches is not None
    distance = inside(signed_distance_map(label, spacing=(2.0, 1.0)), prediction.box)
    regression = (branches.boundary.sigmoid() * distance).mean() + (branches.boundary + distance).square().mean()
    at_points = sample_points(label, branches.point_coords)
    assert not at_points[:, 0].equal(at_points[:, 2])
    pixel = torch.nn.functional.binary_cross_entropy_with_logits(branches.pixel, at_points)
    dice = DiceLoss(mode="multilabel", average="micro")
    region, fusion, coarse = (
        dice(logits, label).item() for logits in (branches.region, branches.fusion, prediction.coarse)
    )
    assert record.region == pytest.approx(region, rel=1e-5)
    assert record.fusion == pytest.approx(fusion, rel=1e-5)
    assert record.coarse == pytest.approx(coarse, rel=1e-5)
    assert record.boundary == pytest.approx(regression.item(), rel=1e-4)
    assert record.pixel == pytest.approx(pixel.item(), rel=1e-4)
    whole = coarse / 3 + (region + regression.item() + pixel.item() + fusion) * 2 / 3
    assert record.loss == pytest.approx(whole, rel=1e-4)


def test_the_network_is_fused_when_its_points_weigh_something(tmp_path: Path) -> None:
    config = replace(CONFIG, beta=StepAt(1), gamma=StepAt(1))
    for epochs, fused in ((1, False), (2, True)):
        history = train(tiny("mln"), Squares(2), Squares(1), replace(config, epochs=epochs), tmp_path, resume=True)
        assert [record.pixel is not None for record in history] == [False, True][:epochs]
        assert [record.fusion is not None for record in history] == [False, True][:epochs]
        model = load_model(tmp_path / "last.ckpt")
        assert isinstance(model.fine, MultiLevelNetwork)
        assert model.fine.fused == fused


def test_a_pair_of_fcns_trains(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=2, alpha=0.0, beta=0.0)
    first, second = train(tiny("rstn"), Squares(3), Squares(1), config, tmp_path)
    assert second.region != first.region
    assert first.boundary is first.pixel is None


@pytest.mark.parametrize("name", ["mll", "mln"])
def test_channels_last_changes_nothing(tmp_path: Path, name: str) -> None:
    config = replace(CONFIG, epochs=1, joint_epoch=0, beta=1.0, gamma=1.0, alpha=1.0)
    losses = [
        train(tiny(name), Squares(2), Squares(1), replace(config, channels_last=last), tmp_path / str(last))[0].loss
        for last in (False, True)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from Python 3.12 on, where a worker is forked
def test_workers_change_nothing(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1)
    losses = [
        train(tiny(), Squares(3), Squares(2), replace(config, workers=workers), tmp_path / str(workers))[0].loss
        for workers in (0, 1)
    ]
    assert losses[0] == losses[1]


def test_validation_asks_the_fine_model_only_where_the_coarse_one_finds_something(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1, learning_rate=0.0)
    scores = []
    for coarse_logit in (-5.0, 5.0):
        record = train(constant(coarse_logit, 5.0), Squares(1), Squares(1), config, tmp_path / str(coarse_logit))[0]
        scores.append((record.coarse_dsc, record.fine_dsc))
    organ = int(Squares(1)[0]["label"].sum())
    everything = 2 * organ / (organ + 3 * SIZE[0] * SIZE[1])
    assert scores == [(0, 0), pytest.approx((everything, everything))]


def test_patience(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=9, learning_rate=0.0, patience=2)
    assert len(train(constant(-5.0, 5.0), Squares(2), Squares(1), config, tmp_path)) == 3


def test_half_precision_training(tmp_path: Path) -> None:
    config = replace(CONFIG, precision="bf16-mixed")
    history = train(tiny(), Squares(2), Squares(1), config, tmp_path)
    assert all(math.isfinite(record.loss) for record in history)


def test_unsharable_checkpoint(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1)
    train(tiny(), Squares(2), Squares(1), config, tmp_path)
    path = re.escape(str(tmp_path / "last.ckpt"))
    changes = r"got beta 0\.0 instead of \{'epoch': 2, .*\}, seed 5 instead of 0"
    with pytest.raises(ValueError, match=rf"those of {path}, {changes}"):
        train(tiny(), Squares(2), Squares(1), replace(config, seed=5, beta=0.0), tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"got width 4 instead of 2"):
        train(tiny(width=4), Squares(2), Squares(1), config, tmp_path, resume=True)


def test_loss_that_is_not_finite_keeps_the_checkpoint(tmp_path: Path) -> None:
    class Broken(Squares):
        def __getitem__(self, index: int) -> Unit:
            unit = super().__getitem__(index)
            return unit | {"image": unit["image"] * math.nan}

    config = replace(CONFIG, epochs=1)
    train(tiny(), Squares(2), Squares(1), config, tmp_path)
    before = (tmp_path / "last.ckpt").read_bytes()
    with pytest.raises(FloatingPointError, match="the loss of epoch 1 is nan"):
        train(tiny(), Broken(2), Squares(1), replace(config, epochs=2), tmp_path, resume=True)
    assert (tmp_path / "last.ckpt").read_bytes() == before


def test_empty_data_sets(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected `training` to hold at least one unit, got none"):
        train(tiny(), Squares(0), Squares(1), CONFIG, tmp_path)
    with pytest.raises(ValueError, match="expected `validation` to hold at least one unit, got none"):
        train(tiny(), Squares(1), Squares(0), CONFIG, tmp_path)


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, epochs=1)
    train(tiny(), Squares(2), Squares(1), config, tmp_path)
    before = (tmp_path / "last.ckpt").read_bytes()

    def torn(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), Squares(2), Squares(1), replace(config, epochs=2), tmp_path, resume=True)
    assert (tmp_path / "last.ckpt").read_bytes() == before
    assert not list(tmp_path.glob(".*"))
