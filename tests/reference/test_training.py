from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from multilevel_loss import DiceLoss, LinearRamp, StepAt, signed_distance_map
from reference.config import TrainingConfig
from reference.data import Unit
from reference.models import CoarseToFine, build_model
from reference.training import load_model, train

SIZE = (36, 44)
CONFIG = TrainingConfig(
    epochs=4,
    joint_epoch=1,
    coarse_box_epoch=2,
    learning_rate=3e-3,
    halving_epoch=1,
    reset_epoch=3,
    alpha=LinearRamp(0, 1, step=0.5),
    beta=StepAt(2),
    num_points=32,
    accelerator="cpu",
)


class Squares(Dataset[Unit]):
    """Units of a bright square on noise; `interrupt` raises it when that many units have been read."""

    def __init__(self, count: int, *, interrupt: int | None = None, spacing: tuple[float, float] = (1.0, 1.0)) -> None:
        self.count = count
        self.reads = 0
        self.interrupt = interrupt
        self.spacing = spacing

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Unit:
        self.reads += 1
        if self.reads == self.interrupt:
            raise KeyboardInterrupt
        generator = torch.Generator().manual_seed(index)
        top, left = torch.randint(2, 22, (2,), generator=generator).tolist()
        label = torch.zeros(3, *SIZE)
        label[:, top : top + 11, left : left + 9] = 1
        image = 0.2 * torch.rand(label.shape, generator=generator) + 0.6 * label
        return Unit(image=image, label=label, spacing=torch.tensor(self.spacing))


def tiny(seed: int = 0) -> CoarseToFine:
    return build_model("mll", width=2, generator=torch.Generator().manual_seed(seed))


def constant(coarse: float, fine: float) -> CoarseToFine:
    """A model that answers two logits, whatever it sees."""
    model = tiny()
    for classifier, logit in ((model.coarse.classifier, coarse), (model.fine.classifier, fine)):
        torch.nn.init.zeros_(classifier.weight)
        torch.nn.init.constant_(classifier.bias, logit)
    return model


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny tensors train faster on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    train(tiny(), Squares(5), Squares(2), CONFIG, out)
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


def test_defaults_are_the_paper_s() -> None:
    config = TrainingConfig()
    assert config.epochs == 20
    assert "".join(config.stage(epoch) for epoch in range(20)) == "SS" + "IIIIII" + "J" * 12
    rates = [config.learning_rate_in(epoch) for epoch in range(20)]
    assert rates == pytest.approx(
        [1e-5] * 8 + [5e-6] * 2 + [2.5e-6] * 2 + [1e-5] * 2 + [5e-6] * 2 + [2.5e-6] * 2 + [1.25e-6] * 2
    )
    assert [round(config.alpha(epoch), 9) for epoch in range(7)] == [0, 0.2, 0.4, 0.6, 0.8, 1, 1]
    assert [config.beta(epoch) for epoch in (0, 11, 12, 19)] == [0, 0, 1, 1]


def test_learning_rate_without_reset() -> None:
    config = TrainingConfig(learning_rate=1.0, halving_epoch=2, halving_period=3, reset_epoch=None)
    assert [config.learning_rate_in(epoch) for epoch in range(9)] == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]


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
    config = replace(CONFIG, epochs=10, learning_rate=1e-2, halving_epoch=8, reset_epoch=None)
    model = build_model("mll", width=4, generator=torch.Generator().manual_seed(0))
    history = train(model, Squares(8), Squares(4), config, tmp_path)
    assert history[-1].region < 0.5 * history[0].region
    assert history[-1].coarse < 0.7 * history[0].coarse
    assert max(record.fine_dsc for record in history) > 0.6


@pytest.mark.parametrize("interrupt", [1, 7, 13])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, uninterrupted: Path, interrupt: int) -> None:
    """Interrupted before the first step, in the second and in the third epoch (5 units each)."""
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), Squares(5, interrupt=interrupt), Squares(2), CONFIG, tmp_path)
    history = train(tiny(seed=1), Squares(5), Squares(2), CONFIG, tmp_path, resume=True)
    assert len(history) == 4
    assert_same_run(tmp_path, uninterrupted)
    assert not list(tmp_path.glob(".*"))


def test_more_epochs_may_follow(tmp_path: Path, uninterrupted: Path) -> None:
    train(tiny(), Squares(5), Squares(2), replace(CONFIG, epochs=2), tmp_path)
    train(tiny(), Squares(5), Squares(2), CONFIG, tmp_path, resume=True)
    saved = [torch.load(out / "last.ckpt", weights_only=True)["model"] for out in (tmp_path, uninterrupted)]
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in saved[0])


def test_a_finished_run_resumes_to_itself(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1)
    first = train(tiny(), Squares(2), Squares(1), config, tmp_path)
    again = train(tiny(), Squares(2, interrupt=1), Squares(1), config, tmp_path, resume=True)
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
    units = Squares(1, spacing=(3.0, 1.5))
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
    import reference.objective as objective
    from multilevel_loss import sample_points, uncertain_points

    drawn: list[tuple[Tensor, Tensor]] = []

    def recording(logits: Tensor, *args: object, **options: object) -> Tensor:
        coords = uncertain_points(logits, *args, **options)
        drawn.append((logits.detach(), coords))
        return coords

    monkeypatch.setattr(objective, "uncertain_points", recording)
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


def test_validation_asks_the_fine_model_only_where_the_coarse_one_finds_something(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1, learning_rate=0.0)
    scores = []
    for coarse_logit in (-5.0, 5.0):
        record = train(constant(coarse_logit, 5.0), Squares(1), Squares(1), config, tmp_path / str(coarse_logit))[0]
        scores.append((record.coarse_dsc, record.fine_dsc))
    everything = 2 * 99 / (99 + SIZE[0] * SIZE[1])
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
        train(build_model("mll", width=4), Squares(2), Squares(1), config, tmp_path, resume=True)


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
