"""Cases are tested once, measured in every round, and reported in the paper's form."""

import csv
import json
import math
import re

import numpy as np
import pytest
import torch
from bright import Stub, bright, bright_crop, bright_model, change_record, write_run, write_store
from typer.testing import CliRunner

import reference.runs
from reference.__main__ import app
from reference.config import RunConfig
from reference.data import read_store
from reference.evaluation import hausdorff_distance_95
from reference.inference import segment
from reference.models.costs import Cost
from reference.report import draw_figures, read_records
from reference.runs import method_name
from reference.testing import EvaluationConfig, evaluate_case, load_overlay, load_record


def evaluate(*arguments, code=0):
    arguments = ["evaluate", *map(str, arguments), "--accelerator", "cpu"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "1000", "TERM": "dumb"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def row(output, *words):
    """The cells of the line that begins with `words`, which no cell of two spaces divides."""
    for line in output.splitlines():
        cells = re.split(r"\s{2,}", line.strip())
        if cells[: len(words)] == list(words):
            return cells[len(words) :]
    raise AssertionError(f"no row {words} in\n{output}")


@pytest.fixture
def stored(tmp_path):
    """Cases 0 to 3 with 0, 72, 144 and 216 voxels of organ, of which one is dark and not found."""
    return write_store(tmp_path / "store")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(reference.runs, "load_model", bright_model)
    monkeypatch.setattr("reference.report.count_coarse_to_fine", lambda _: Cost(31_000_000, 149_000_000_000))
    monkeypatch.setattr("reference.commands.evaluate.draw_figures", lambda *_: [])


def figures(out, config):
    """The names of the pictures of what is in `out`."""
    records = read_records(out / "cases", config, [])
    return {path.name for path in draw_figures(records, out)}


def test_a_case_by_hand(stored):
    case = read_store(stored)[3]
    result, overlay = evaluate_case({0: Stub(bright, bright_crop)}, case, EvaluationConfig(tmax=3))
    dsc = 2 * 215 / (215 + 216)
    assert result.dsc_per_round == pytest.approx([dsc] * 4)
    assert result.rdsc_per_round == [1.0] * 3
    assert (result.iterations, result.final) == (1, 1)
    assert result.crops_per_round[1:] == [0, 0]
    assert len(result.seconds_per_round) == 4
    assert result.seconds == sum(result.seconds_per_round[:2])
    assert (result.dsc, result.hd95) == (result.dsc_per_round[1], result.hd95_per_round[1])
    # The dark voxel is in the middle slices: its 4 neighbours in the slice, those above and below become surface.
    assert result.hd95 == hausdorff_distance_95(case.intensities() > 0.5, case.label, case.spacing)
    assert 0 < result.asd < 1
    assert 0.5 < result.nsd <= 1
    np.testing.assert_array_equal(overlay.image, case.intensities(1))
    np.testing.assert_array_equal(overlay.truth, case.label[1])
    np.testing.assert_array_equal(overlay.prediction, case.label[1])
    assert overlay.points.shape == (256, 2)


def test_stopping_and_going_on_report_the_same_round(stored):
    case = read_store(stored)[3]

    def shrink(seen):
        """Lose the last of the columns that the round before saw, while there are more than seven of nine."""
        columns = (seen[:, :3] >= 0.5).any(2, keepdim=True)
        kept = columns & columns.roll(-1, 3) if int(columns[0].any(0).sum()) > 7 else columns
        return torch.where(kept & (seen[:, :3] >= 0.5), 20.0, -20.0)

    going, _ = evaluate_case({0: Stub(bright, shrink)}, case, EvaluationConfig(tmax=4))
    stopped, _ = evaluate_case({0: Stub(bright, shrink)}, case, EvaluationConfig(tmax=4, all_rounds=False))
    assert going.iterations == stopped.iterations == 3
    assert len(going.dsc_per_round) == 5
    assert len(stopped.dsc_per_round) == 4
    assert (going.dsc, going.hd95, going.asd, going.nsd) == (stopped.dsc, stopped.hd95, stopped.asd, stopped.nsd)


def test_a_run_is_tested_on_its_fold_and_reported(tmp_path, stored):
    out = tmp_path / "out"
    output = evaluate(stored, "--run", write_run(tmp_path / "run", stored, folds=2, fold=1), "-o", out, "--tmax", 5)
    files = sorted(out.glob("cases/*/*.json"))
    assert [path.stem for path in files] == ["case2", "case3"]
    record = load_record(files[1])
    assert (record.method, record.dataset, record.fold, record.views) == ("MLL", "store", 1, 3)
    assert record.config == EvaluationConfig(tmax=5)
    assert record.result.dsc == pytest.approx(2 * 215 / (215 + 216))
    dsc = np.array([2 * 143 / (143 + 144), 2 * 215 / (215 + 216)])
    expected = [
        f"{100 * dsc.mean():.2f}% ± {100 * dsc.std():.2f}%",
        f"{100 * dsc.min():.2f}%",
        f"{100 * dsc.max():.2f}%",
    ]
    assert row(output, "w/o label", "MLL model, ours, on store") == ["–", *expected, "2-D"]
    assert row(output, "w/o label", "MLL model")[1] == "85.83% ± 4.37%"
    assert row(output, "MLL, ours, on store")[:7] == ["1.0000"] * 5 + ["2/2", "1.00 iters"]
    assert row(output, "Store", "MLL model, ours, on store")[:4] == [*expected, "1.00"]
    assert "Table 9 is left out: nothing was measured for it (MSD spleen)." in output
    assert row(output, "store", "MLL, ours, on store", "coarse", "2")[:3] == expected
    assert figures(out, record.config) == {"figure3-store.png", "figure8-store.png"}
    with (out / "cases.csv").open(encoding="utf-8") as file:
        assert [line["case"] for line in csv.DictReader(file)] == ["case2", "case3"]
    assert (out / "tables.txt").read_text(encoding="utf-8") in output


def test_what_is_done_is_not_done_again(tmp_path, stored, monkeypatch):
    run, out = write_run(tmp_path / "run", stored, folds=2), tmp_path / "out"
    first = evaluate(stored, "--run", run, "-o", out)
    (lost,) = out.glob("cases/*/case1.json")
    lost.unlink()
    tested = []

    def count(models, image, **options):
        tested.append(image.shape)
        return segment(models, image, **options)

    monkeypatch.setattr("reference.testing.segment", count)
    again = evaluate(stored, "--run", run, "-o", out)
    assert len(tested) == 1
    assert row(first, "w/o label", "MLL model, ours, on store") == row(again, "w/o label", "MLL model, ours, on store")
    evaluate(stored, "--run", run, "-o", out)
    assert len(tested) == 1
    evaluate(stored, "--run", run, "-o", out, "--checkpoint", "last")
    evaluate(stored, "--run", run, "-o", out, "--checkpoint", "last", "--tmax", 3)
    assert len(tested) == 5


def test_shards_and_folds_merge(tmp_path, stored):
    runs = [write_run(tmp_path / f"fold{fold}", stored, folds=2, fold=fold) for fold in range(2)]
    out, whole = tmp_path / "out", tmp_path / "whole"
    both = [option for run in runs for option in ("--run", run)]
    assert "2 of 4 cases are still to be tested" in evaluate(stored, *both, "-o", out, "--shard", "0/2")
    assert not list(out.glob("*.csv"))
    merged = evaluate(stored, *both, "-o", out, "--shard", "1/2")
    evaluate(stored, "--run", runs[0], "-o", whole)
    second = evaluate(stored, "--run", runs[1], "-o", whole)
    for output in (merged, second):
        assert row(output, "store", "MLL, ours, on store", "coarse")[0] == "4"
    assert row(merged, "w/o label", "MLL model, ours, on store") == row(
        second, "w/o label", "MLL model, ours, on store"
    )
    assert figures(out, EvaluationConfig()) == {f"figure{number}-store.png" for number in ("3", "6ab", "8")}


def test_methods_seeds_and_boxes_have_rows_of_their_own(tmp_path, stored):
    runs = [
        write_run(tmp_path / "mll0", stored, folds=2),
        write_run(tmp_path / "mll1", stored, folds=2, seed=1),
        write_run(tmp_path / "region", stored, folds=2, alpha=0, beta=0),
        write_run(tmp_path / "mln", stored, axes=(0,), folds=2, model="mln"),
    ]
    named = [option for run in runs for option in ("--run", run)]
    evaluate(stored, *named, "-o", tmp_path / "out")
    output = evaluate(stored, *named, "-o", tmp_path / "out", "--with-label")
    for words in (
        ("with label", "MLL model, ours, on store, seed 0"),
        ("with label", "MLL model, ours, on store, seed 1"),
        ("w/o label", "MLL model, ours, on store, seed 0"),
        ("with label", "MLN model, ours, on store"),
        ("Region loss, ours, on store",),
        ("MLN model, ours, on store",),
    ):
        row(output, *words)
    names = figures(tmp_path / "out", EvaluationConfig())
    assert names == {f"figure{number}-store.png" for number in ("3", "6cd", "7", "8")}


def test_a_retrained_run_takes_the_place_of_the_old(tmp_path, stored):
    run, out = write_run(tmp_path / "run", stored, folds=2), tmp_path / "out"
    evaluate(stored, "--run", run, "-o", out)
    (run / "axis0" / "best.ckpt").write_text("trained again")
    output = evaluate(stored, "--run", run, "-o", out)
    assert row(output, "store", "MLL, ours, on store", "coarse")[0] == "2"
    (run / "axis0" / "best.ckpt").write_text("and again")
    other = write_run(tmp_path / "other", stored, folds=2, fold=1)
    assert "expected one result of case0 by MLL, got" in evaluate(stored, "--run", other, "-o", out, code=2)


@pytest.mark.parametrize(
    ("layout", "path", "dataset", "tables"),
    [("nih", "x", "nih", "3456"), ("msd", "Task09_Spleen/imagesTr/a.nii.gz", "msd-spleen", "8")],
)
def test_data_sets_are_known(tmp_path, stored, layout, path, dataset, tables):
    for number in range(4):
        change_record(stored / f"case{number}", layout=layout, sources=[{"path": path, "sha256": str(number)}])
    run, out = write_run(tmp_path / "run", stored, folds=2), tmp_path / "out"
    output = evaluate(stored, "--run", run, "-o", out)
    assert {json.loads(path.read_text())["dataset"] for path in out.glob("cases/*/*.json")} == {dataset}
    assert sorted(path.name for path in out.glob("table*.csv")) == [f"table{number}.csv" for number in tables]
    first = (out / f"table{tables[0]}.csv").read_text(encoding="utf-8")
    assert '"MLL model, ours",' in first
    assert "Table 7 is left out: nothing was measured for it (ISICDM thin or ISICDM thick)." in output


def test_thin_volumes_stand_with_the_thin_ones(tmp_path, stored):
    for number in range(4):
        (stored / f"case{number}").rename(stored / f"thin-{number}")
        change_record(stored / f"thin-{number}", layout="isicdm", name=f"thin-{number}")
    run, out = write_run(tmp_path / "run", stored, folds=2), tmp_path / "out"
    evaluate(stored, "--run", run, "-o", out)
    rows = list(csv.reader((out / "table7.csv").read_text(encoding="utf-8").splitlines()))
    assert [row[:2] for row in rows[3:6]] == [["Thin", "MLL model"], ["Thin", "MLL model, ours"], ["Thin", "MLN model"]]


def test_an_empty_prediction_and_an_empty_label(tmp_path, stored, monkeypatch):
    monkeypatch.setattr(reference.runs, "load_model", lambda _: Stub(lambda unit: unit * 0 - 20, bright_crop))
    output = evaluate(stored, "--run", write_run(tmp_path / "run", stored, folds=2), "-o", tmp_path / "out")
    (path,) = (tmp_path / "out").glob("cases/*/case1.json")
    result = load_record(path).result
    assert (result.dsc, result.hd95, result.asd, result.nsd) == (0, math.inf, math.inf, 0)
    assert (result.iterations, result.final) == (None, 0)
    (path,) = (tmp_path / "out").glob("cases/*/case0.json")
    assert (load_record(path).result.dsc, load_record(path).result.hd95) == (1, 0)
    assert row(output, "MLL, ours, on store")[:7] == ["nan"] * 5 + ["0/2", "– iters"]
    assert load_overlay(path).truth.sum() == 0


def test_names_of_methods():
    def named(model, **options):
        return method_name(RunConfig.of({"store": "store", "model": model, **options}))

    assert named("mll") == "MLL"
    assert named("mll", beta=0) == "Region + boundary loss"
    assert named("mll", alpha=0, beta=0) == "Region loss"
    assert named("mll", alpha=0) == "Region + pixel loss"
    assert named("rstn") == "RSTN"
    assert named("mln") == "MLN"
    assert named("mln", model_options={"pixel_module": "mlps"}) == "MLN w/o Pixel module"
    both = {"pixel_module": "mlps", "fusion_module": "convolutions"}
    assert named("mln", model_options=both) == "MLN w/o Pixel&MLSG module"


def test_refusals(tmp_path, stored):
    run = write_run(tmp_path / "run", stored, folds=2)
    for arguments, message in (
        ((stored, "--run", tmp_path / "none"), "expected a run with config.yaml at"),
        ((tmp_path / "none", "--run", run), "expected a store at"),
        ((stored, "--run", run, "--shard", "x"), "expected `shard` to be i/n"),
    ):
        assert message in re.sub(r"\s+", " ", evaluate(*arguments, "-o", tmp_path / "out", code=2))
    whole = write_run(tmp_path / "whole", stored, fold=None)
    assert "it was trained on all cases" in evaluate(stored, "--run", whole, "-o", tmp_path / "out", code=2)
    (run / "axis0" / "best.ckpt").unlink()
    for axis in (1, 2):
        (run / f"axis{axis}" / "best.ckpt").unlink()
    assert "expected best.ckpt in axis0, axis1 or axis2 of" in evaluate(stored, "--run", run, "-o", tmp_path, code=2)
    evaluate(stored, "--run", run, "-o", tmp_path / "out", "--checkpoint", "last")
    next((tmp_path / "out").glob("cases/*/case0.json")).write_text("{")
    message = evaluate(stored, "--run", run, "-o", tmp_path / "out", "--checkpoint", "last", code=2)
    assert "case0.json to be the result of a case, but it cannot be read" in message
