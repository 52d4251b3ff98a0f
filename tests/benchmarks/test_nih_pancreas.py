"""The benchmark from its command line: phantom and folders, folds, models, resuming, merging, bad options."""

import json
import shutil

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import nih_pancreas
from benchmarks.nih_pancreas import LOSSES, app, budget
from multilevel_loss import LinearRamp, StepAt
from reference.config import TrainingConfig

TINY = ["--width", "2", "--epochs", "1"]


def invoke(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300", "TERM": "dumb"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def results(out):
    return json.loads((out / "results.json").read_text())


@pytest.fixture(autouse=True)
def few_phantoms(monkeypatch):
    monkeypatch.setattr(nih_pancreas, "PHANTOMS", 4)
    monkeypatch.setattr(nih_pancreas, "PHANTOM_SIZE", 32)
    monkeypatch.setattr(nih_pancreas, "PHANTOM_DEPTH", 6)


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


@pytest.mark.parametrize(("model", "epochs"), [("mll", 20), ("mln", 25), ("rstn", 20)])
def test_at_the_paper_s_epochs_the_budget_is_the_paper_s_course(model, epochs):
    loss = "mll" if model == "mll" else model
    assert budget(loss, model, epochs, 1e-5, 0) == TrainingConfig.paper(model)


def test_losses_differ_in_their_terms_alone():
    region, boundary, full = (budget(loss, "mll", 20, 1e-5, 0) for loss in LOSSES)
    assert (region.alpha, region.beta) == (0.0, 0.0)
    assert (boundary.alpha, boundary.beta) == (TrainingConfig().alpha, 0.0)
    assert (full.alpha, full.beta) == (TrainingConfig().alpha, TrainingConfig().beta)
    shared = [{k: v for k, v in vars(each).items() if k not in ("alpha", "beta")} for each in (region, boundary, full)]
    assert shared[0] == shared[1] == shared[2]


def test_at_half_the_epochs_every_stage_comes_twice_as_soon():
    half = budget("mll", "mll", 10, 1e-3, 0)
    assert (half.joint_epoch, half.coarse_box_epoch, half.halving_epoch, half.halving_period) == (1, 4, 4, 1)
    assert (half.reset_epoch, half.alpha, half.beta) == (6, LinearRamp(0.0, 1.0, step=0.4), StepAt(6))


def test_phantom_is_trained_in_three_views_and_marked_in_every_table(tmp_path):
    output = invoke(*TINY, "--out", tmp_path, "--losses", "region")
    assert "Region loss, ours, on phantom" in output
    assert "ours, on nih" not in output
    run = results(tmp_path)
    assert [(each["method"], each["dataset"], each["views"]) for each in run["records"]] == [
        ("Region loss", "phantom", 3)
    ]
    assert len(run["trainings"]) == 3
    assert run["options"]["seed"] == 0
    # Nothing is trained or tested again, and a loss may join.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cases/*/*.json")}
    output = invoke(*TINY, "--out", tmp_path, "--losses", "region,mll", "--resume")
    assert "MLL, ours, on phantom" in output
    assert {path: path.stat().st_mtime_ns for path in before} == before
    both = results(tmp_path)
    assert both["trainings"].items() > run["trainings"].items()
    assert len(both["trainings"]) == 6
    assert {(each["method"], each["dataset"], each["views"]) for each in both["records"]} == {
        ("Region loss", "phantom", 3),
        ("MLL", "phantom", 3),
    }
    tested = {each["result"]["name"] for each in both["records"]}
    assert tested == {"phantom-0000"}  # The first of four folds.
    for name in ("tables.txt", "table5.csv", "fold0/mll/curves.png"):
        assert (tmp_path / name).stat().st_size > 0
    assert "--resume goes on with it" in invoke(*TINY, "--out", tmp_path, "--losses", "mll", code=2)
    changed = ("--epochs", 1, "--width", 3, "--out", tmp_path, "--losses", "mll", "--resume")
    assert "width 3 instead of 2" in invoke(*changed, code=2)


def test_folds_of_different_machines_merge(folder, tmp_path):
    for fold in (1, 3):
        invoke(*TINY, "--data", folder, "--losses", "mll", "--folds", fold, "--out", tmp_path / str(fold))
    output = invoke("merge", tmp_path / "1", tmp_path / "3", "--out", tmp_path / "all")
    assert "MLL, ours, on slices" in output
    merged = results(tmp_path / "all")
    assert sorted(each["result"]["name"] for each in merged["records"]) == ["P1-2", "P1-3", "P3-6", "P3-7"]
    assert {each["fold"] for each in merged["records"]} == {1, 3}
    assert {each["views"] for each in merged["records"]} == {1}  # Single slices have one view.
    again = invoke("merge", tmp_path / "1", tmp_path / "1", "--out", tmp_path / "all", code=2)
    assert "expected each case once" in again


@pytest.mark.parametrize(("model", "method"), [("mln", "MLN"), ("rstn", "RSTN")])
def test_other_models(folder, tmp_path, model, method):
    invoke(*TINY, "--data", folder, "--model", model, "--out", tmp_path / "out")
    assert {each["method"] for each in results(tmp_path / "out")["records"]} == {method}


def test_interrupt_names_the_command_to_go_on_with(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(nih_pancreas, "train_run", interrupted)
    monkeypatch.setattr("sys.argv", ["benchmarks/nih_pancreas.py", "--out", "a b"])
    output = invoke(*TINY, "--out", tmp_path, code=130)
    assert "python benchmarks/nih_pancreas.py --out 'a b' --resume" in output


def test_bad_options_are_named(folder, tmp_path):
    out = ("--out", tmp_path / "out")
    assert "found none" in invoke(*TINY, *out, "--data", tmp_path / "absent", code=2)
    assert "'dice'" in invoke(*TINY, *out, "--losses", "mll,dice", code=2)
    assert "'4'" in invoke(*TINY, *out, "--data", folder, "--folds", "0,4", code=2)
    assert "'oblique'" in invoke(*TINY, *out, "--data", folder, "--views", "oblique", code=2)
    next((folder / "masks").iterdir()).unlink()
    assert "expected a mask for" in invoke(*TINY, *out, "--data", folder, code=2)


@pytest.mark.data
def test_real_slices(data, tmp_path):
    files = sorted((data / "nih_pancreas_2d" / "images").iterdir())[:24]
    for part in ("images", "masks"):
        (tmp_path / "few" / part).mkdir(parents=True)
        for file in files:
            shutil.copy(data / "nih_pancreas_2d" / part / file.name, tmp_path / "few" / part)
    out = tmp_path / "out"
    invoke("--size", 64, *TINY, "--losses", "mll", "--out", out, "--data", tmp_path / "few")
    assert len(results(out)["records"]) > 1
