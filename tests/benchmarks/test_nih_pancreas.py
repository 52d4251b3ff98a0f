"""The benchmark from its command line: a run on the phantom and on a folder, resuming, bad options."""

import json
import math
import shutil

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import nih_pancreas
from benchmarks.nih_pancreas import (
    TERMS,
    CaseResult,
    LossResult,
    Options,
    Source,
    app,
    budget,
    iteration_table,
    mean_per_iteration,
    overlay,
    result_table,
)
from multilevel_loss import LinearRamp, StepAt
from reference.config import TrainingConfig
from reference.data import Case, make_phantom
from reference.inference import Segmentation

TINY = ["--size", "32", "--width", "2", "--epochs", "1"]


def invoke(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def options(**changes):
    return Options(**{"data": None, "width": 64, "size": 512, "epochs": 20, "learning_rate": 1e-5, "seed": 0} | changes)


@pytest.fixture(autouse=True)
def few_phantoms(monkeypatch):
    monkeypatch.setattr(nih_pancreas, "PHANTOMS", 5)
    monkeypatch.setattr(nih_pancreas, "make_phantom", lambda seed, size: make_phantom(seed, size=size, depth=2))


@pytest.fixture
def folder(tmp_path):
    """A folder of eight 2-D images of four patients."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / "slices" / part).mkdir(parents=True)
    for k in range(8):
        mask = np.zeros((40, 48), dtype=np.uint8)
        mask[10 + k : 24, 12:30] = 255
        image = (mask // 4 + rng.integers(0, 90, mask.shape)).astype(np.uint8)
        for part, pixels in (("images", image), ("masks", mask)):
            cv2.imwrite(str(tmp_path / "slices" / part / f"P{k // 2}-{k}.jpg"), pixels)
    return tmp_path / "slices"


def test_at_the_paper_s_epochs_the_budget_is_the_paper_s_course():
    assert budget("mll", options()) == TrainingConfig()
    region = budget("region", options())
    assert (region.alpha, region.beta) == (0.0, 0.0)
    assert budget("region+boundary", options()).alpha == TrainingConfig().alpha
    assert budget("region+boundary", options()).beta == 0.0


@pytest.mark.parametrize("epochs", [1, 2, 5, 10, 33])
def test_all_losses_share_everything_but_their_terms(epochs):
    def shared(loss):
        values = vars(budget(loss, options(epochs=epochs)))
        return {name: value for name, value in values.items() if name not in ("alpha", "beta")}

    assert shared("region") == shared("region+boundary") == shared("mll")
    assert shared("mll")["epochs"] == epochs


def test_stopped_cases_keep_their_last_value():
    assert mean_per_iteration([[0.2, 0.4, 0.6], [0.8], []]) == pytest.approx([0.5, 0.6, 0.7])
    assert mean_per_iteration([[], []]) == []


def test_at_half_the_epochs_every_stage_comes_twice_as_soon():
    half = budget("mll", options(epochs=10))
    assert (half.joint_epoch, half.coarse_box_epoch, half.halving_epoch, half.halving_period) == (1, 4, 4, 1)
    assert (half.reset_epoch, half.alpha, half.beta) == (6, LinearRamp(0.0, 1.0, step=0.4), StepAt(6))


def test_tables_by_hand():
    def case(name, dsc, rdsc, hd95, iterations):
        return CaseResult(name, name, dsc[-1], hd95, iterations, dsc, rdsc, 2.0)

    cases = [case("a", [0.2, 0.4, 0.6], [0.8, 0.99], 4.0, 2), case("b", [0.4, 0.0], [0.0], math.inf, None)]
    results = {"mll": LossResult([], cases)}
    source = Source([], "made up", "px")
    cells = [cell for column in result_table(results, source).columns for cell in column.cells]
    assert cells == ["mll", "30.00 ± 30.00", "0.00", "60.00", "4.00 ± 0.00", "1", "2.0", "1/2", "0", "4"]
    columns = [list(column.cells) for column in iteration_table(results, source).columns]
    assert columns[:3] == [["mll", ""], ["DSC", "RDSC"], ["30.00", ""]]  # The coarse model has no RDSC.
    assert columns[3:] == [["20.00", "40.00"]] + 4 * [["30.00", "49.50"]]


def test_overlay_draws_points_where_the_probability_is_one_half():
    rows, columns = np.mgrid[:64, :96]
    radius = np.hypot(rows - 57, columns - 40)[None]
    probability = (1 / (1 + np.exp(radius - 8))).astype(np.float32)
    case = Case("a", "a", probability, radius < 8, (1.0, 1.0, 1.0))
    points = overlay(case, Segmentation(probability >= 0.5, probability, [], None, 0.0), seed=0).points
    assert (np.abs(np.hypot(points[:, 0] - 40, points[:, 1] - 57) - 8) < 6).mean() > 0.7
    nothing = np.zeros_like(probability)
    empty = overlay(case, Segmentation(nothing >= 0.5, nothing, [], None, 0.0), seed=0).points
    assert empty.shape == points.shape
    assert empty.min() >= -0.5
    assert (empty.max(axis=0) <= (95.5, 63.5)).all()


def test_phantom_run_marks_every_line_and_writes_everything(tmp_path, monkeypatch):
    titles = []
    for name in ("draw_curves", "draw_convergence", "draw_overlays"):
        draw = getattr(nih_pancreas, name)
        monkeypatch.setattr(nih_pancreas, name, lambda *a, draw=draw: (titles.append(a[-1]), draw(*a)))
    output = invoke(*TINY, "--out", tmp_path)
    assert all("phantom" in line for line in output.splitlines() if line.strip())
    assert len(titles) == 3
    assert all("PHANTOM" in title for title in titles)
    for header in ("DSC %", "HD95 mm", "iterations", "converged", "train s", "RDSC", "coarse"):
        assert header in output
    results = json.loads((tmp_path / "results.json").read_text())
    assert "PHANTOM" in results["source"]
    assert list(results["losses"]) == list(TERMS)
    assert results["options"]["width"] == 2
    sides = results["patients"]
    assert not set(sides["train"]) & set(sides["test"])
    for loss in results["losses"].values():
        assert [case["patient"] for case in loss["cases"]] == sides["test"]
        assert len(loss["history"]) == 1
        for case in loss["cases"]:
            assert case["dsc"] == case["dsc_per_iteration"][-1]
    for name in ("curves.png", "convergence.png", "overlays.png"):
        assert cv2.imread(str(tmp_path / name)) is not None


def test_resuming_trains_no_finished_loss_again_and_gives_the_same_figures(tmp_path):
    invoke(*TINY, "--out", tmp_path, "--losses", "region")
    first = json.loads((tmp_path / "results.json").read_text())["losses"]["region"]
    invoke(*TINY, "--out", tmp_path, "--losses", "region,mll", "--resume")
    losses = json.loads((tmp_path / "results.json").read_text())["losses"]
    assert list(losses) == ["region", "mll"]
    assert losses["region"]["history"] == first["history"]  # Seconds included: not measured anew.
    assert losses["region"]["dsc"] == first["dsc"]


def test_interrupt_names_the_command_to_go_on_with(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(nih_pancreas, "train", interrupted)
    monkeypatch.setattr("sys.argv", ["benchmarks/nih_pancreas.py", "--out", "a b"])
    output = invoke(*TINY, "--out", tmp_path, code=130)
    assert "python benchmarks/nih_pancreas.py --out 'a b' --resume" in output
    monkeypatch.undo()
    monkeypatch.setattr(nih_pancreas, "PHANTOMS", 5)
    assert "mll" in invoke(*TINY, "--out", tmp_path, "--resume", "--losses", "mll")


def test_resuming_needs_a_run_with_the_same_options(tmp_path):
    assert "there is no run in" in invoke(*TINY, "--out", tmp_path, "--resume", code=2)
    (tmp_path / "options.json").write_text(json.dumps(vars(options(width=3))))
    assert "width 3" in invoke(*TINY, "--out", tmp_path, "--resume", code=2)


def test_folder_run_names_the_folder_and_measures_pixels(folder, tmp_path):
    output = invoke(*TINY, "--out", tmp_path / "out", "--data", folder, "--losses", "mll")
    assert all("slices" in line for line in output.splitlines() if line.strip())
    assert "phantom" not in output.lower()
    assert "HD95 px" in output


def test_bad_data_and_bad_losses_are_named(folder, tmp_path):
    assert "found none" in invoke(*TINY, "--out", tmp_path / "out", "--data", tmp_path / "absent", code=2)
    assert "'dice'" in invoke(*TINY, "--out", tmp_path / "out", "--losses", "mll,dice", code=2)
    next((folder / "masks").iterdir()).unlink()
    assert "expected a mask for" in invoke(*TINY, "--out", tmp_path / "out", "--data", folder, code=2)


def test_help_names_every_option():
    output = invoke("--help")
    for option in (
        "--data",
        "--out",
        "--losses",
        "--width",
        "--size",
        "--epochs",
        "--learning-rate",
        "--seed",
        "--resume",
    ):
        assert option in output


@pytest.mark.data
def test_real_slices(data, tmp_path):
    files = sorted((data / "nih_pancreas_2d" / "images").iterdir())[:24]
    for part in ("images", "masks"):
        (tmp_path / "few" / part).mkdir(parents=True)
        for file in files:
            shutil.copy(data / "nih_pancreas_2d" / part / file.name, tmp_path / "few" / part)
    out = tmp_path / "out"
    invoke("--size", 64, "--width", 2, "--epochs", 1, "--losses", "mll", "--out", out, "--data", tmp_path / "few")
    assert json.loads((out / "results.json").read_text())["losses"]["mll"]["dsc"]["count"] > 1
