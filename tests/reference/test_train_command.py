"""`python -m reference train`: from a store to a run, which its own config.yaml repeats."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner, Result

from reference.__main__ import app
from reference.data import Case
from reference.data.store import write_case
from reference.history import read_history
from reference.training import load_model

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = """
width: 2
epochs: 2
joint_epoch: 1
coarse_box_epoch: 1
learning_rate: 1e-3
beta: {epoch: 1}
num_points: 32
folds: 2
validation: 0.5
accelerator: cpu
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four volumes with a bright block."""
    folder = tmp_path_factory.mktemp("data") / "blocks"
    for number in range(4):
        rng = np.random.default_rng(number)
        label = np.zeros((6, 34, 38), dtype=bool)
        label[2:4, 10 + number : 20, 12:24] = True
        image = (rng.uniform(0, 0.2, label.shape) + 0.6 * label).astype(np.float32)
        write_case(folder, Case(f"case{number}", f"case{number}", image, label, (2.0, 1.0, 1.0)), {})
    return folder


@pytest.fixture
def options(tmp_path: Path) -> Path:
    path = tmp_path / "options.yaml"
    path.write_text(OPTIONS)
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, arguments)], env={"COLUMNS": "300"}, catch_exceptions=False)


def weights(run: Path, axis: int) -> torch.Tensor:
    return torch.cat([value.flatten() for value in load_model(run / f"axis{axis}" / "last.ckpt").parameters()])


def test_a_run_and_its_repetition(tmp_path: Path, store: Path, options: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    result = invoke(store, "--out", first, "--config", options, "--views", "axial,coronal", "--learning-rate", "2e-3")
    assert result.exit_code == 0, result.output
    assert "axial: 2 units to train on, 2 to validate" in result.output
    assert "coronal: 2 epochs, best DSC in validation 0." in result.output
    assert {path.name for path in first.iterdir()} == {"config.yaml", "curves.png", "axis0", "axis1"}
    written = yaml.safe_load((first / "config.yaml").read_text())
    assert (written["learning_rate"], written["width"], written["views"]) == (2e-3, 2, ["axial", "coronal"])
    assert written["alpha"] == {"start": 0, "stop": 1, "step": 0.2}
    assert json.loads((first / "axis0" / "log.json").read_text())["config"]["learning_rate"] == 2e-3
    assert cv2.imread(str(first / "curves.png")).std() > 5
    assert load_model(first / "axis1" / "best.ckpt").config["num_points"] == 32

    assert invoke("--out", second, "--config", first / "config.yaml").exit_code == 0
    for axis in (0, 1):
        assert weights(first, axis).equal(weights(second, axis))
    assert not weights(first, 0).equal(weights(first, 1))


def test_views_join_a_run_and_epochs_follow(tmp_path: Path, store: Path, options: Path) -> None:
    run = tmp_path / "run"
    assert invoke(store, "--out", run, "--config", options, "--views", "sagittal", "--epochs", 1).exit_code == 0
    joined = invoke(store, "--out", run, "--views", "axial")
    assert joined.exit_code == 0
    assert "sagittal: 1 epochs" in joined.output
    assert yaml.safe_load((run / "config.yaml").read_text())["views"] == ["axial", "sagittal"]
    assert invoke("--out", run, "--resume", "--epochs", 2).exit_code == 0
    assert [len(read_history(run / name)) for name in ("axis0", "axis2")] == [2, 2]


def test_what_a_run_holds_is_not_overwritten(tmp_path: Path, store: Path, options: Path) -> None:
    run = tmp_path / "run"
    given = (store, "--out", run, "--config", options, "--views", "axial", "--epochs", 1)
    assert invoke(*given).exit_code == 0
    again = invoke(*given)
    assert again.exit_code == 2
    assert f"expected no training in {run / 'axis0'}, found one: --resume goes on with it" in again.output
    changed = invoke(*given, "--resume", "--seed", 3)
    assert changed.exit_code == 2
    assert f"expected the options of the run in {run}, got seed 3 instead of 0" in changed.output
    assert len(read_history(run / "axis0")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--epochs", "many"), "expected `epochs` to be an integer, got 'many'"),
        (("--fold", "2"), "expected `fold` to be 0 to 1, got 2"),
        (("--model-options", "{depth: 3}"), "unexpected keyword argument 'depth'"),
        (("--imagenet", "none.pth"), "none.pth"),
    ],
)
def test_wrong_options(tmp_path: Path, store: Path, options: Path, arguments: tuple[str, str], message: str) -> None:
    result = invoke(store, "--out", tmp_path / "run", "--config", options, *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "run").exists()


def test_no_store(tmp_path: Path, options: Path) -> None:
    result = invoke("--out", tmp_path / "run", "--config", options)
    assert "expected `store` to be the folder that the prepare command wrote, got none" in result.output
    assert "expected a store at" in invoke(tmp_path / "nothing", "--out", tmp_path / "run").output


def test_unknown_key_in_yaml(tmp_path: Path, store: Path, options: Path) -> None:
    options.write_text(OPTIONS + "learning_rat: 1\n")
    result = invoke(store, "--out", tmp_path / "run", "--config", options)
    assert result.exit_code == 2
    assert "got 'learning_rat'" in result.output


def test_help_names_every_option() -> None:
    output = invoke("--help").output
    assert all(option in output for option in ("--learning-rate", "--model-options", "--fold", "--views", "--patience"))
    assert "epochs without a better validation DSC after which training stops" in output
