"""Options come from YAML and the command line by one way, wrong ones are named, and what a run writes repeats it."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from multilevel_loss import LinearRamp, StepAt
from multilevel_loss.schedules import PAPER_MLL, PAPER_MLN
from reference.config import (
    RunConfig,
    TrainingConfig,
    changed_options,
    option_help,
    parse_option,
    read_options,
    write_config,
    write_option,
)
from reference.data import Case, split_by_patient
from reference.data.splits import folds


def test_defaults_are_the_paper_s() -> None:
    config = TrainingConfig()
    assert config.epochs == 20
    assert "".join(config.stage(epoch) for epoch in range(20)) == "SS" + "IIIIII" + "J" * 12
    rates = [config.learning_rate_in(epoch) for epoch in range(20)]
    assert rates == pytest.approx(
        [1e-5] * 8 + [5e-6] * 2 + [2.5e-6] * 2 + [1e-5] * 2 + [5e-6] * 2 + [2.5e-6] * 2 + [1.25e-6] * 2
    )
    assert {"alpha": config.alpha, "beta": config.beta} == PAPER_MLL


def test_the_paper_s_settings_by_model() -> None:
    assert TrainingConfig.paper("mll") == TrainingConfig()
    mln = TrainingConfig.paper("mln")
    assert (mln.epochs, mln.alpha) == (25, 1.0)
    assert {"beta": mln.beta, "gamma": mln.gamma} == PAPER_MLN
    assert [mln.learning_rate_in(epoch) for epoch in (12, 24)] == [1e-5, 1e-5 / 64]
    rstn = TrainingConfig.paper("rstn")
    assert (rstn.epochs, rstn.alpha, rstn.beta) == (20, 0.0, 0.0)


def test_learning_rate_without_reset() -> None:
    config = TrainingConfig(learning_rate=1.0, halving_epoch=2, halving_period=3, reset_epoch=None)
    assert [config.learning_rate_in(epoch) for epoch in range(9)] == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]


@pytest.mark.parametrize("name", ["epochs", "halving_period", "num_points", "devices", "num_nodes"])
def test_numbers_that_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"expected `{name}` to be positive, got 0"):
        TrainingConfig(**{name: 0})


def test_options_replace_the_paper_s_for_the_model() -> None:
    run = RunConfig.of({"store": "cases", "model": "mln", "beta": 0.5, "views": ["axial"], "patience": None})
    assert run.training == TrainingConfig(epochs=25, alpha=1.0, beta=0.5, gamma=StepAt(12))
    assert (run.store, run.views, run.model) == (Path("cases"), ("axial",), "mln")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "3", 3),
        ("learning_rate", "1e-4", 1e-4),
        ("learning_rate", "1", 1.0),
        ("jitter", "false", False),
        ("patience", "null", None),
        ("patience", "4", 4),
        ("reset_epoch", "~", None),
        ("alpha", "0.5", 0.5),
        ("alpha", "{start: 0, stop: 1, step: 0.5}", LinearRamp(0, 1, step=0.5)),
        ("beta", "{epoch: 3}", StepAt(3)),
        ("beta", "{epoch: 3, after: 0.1}", StepAt(3, after=0.1)),
        ("precision", "bf16-mixed", "bf16-mixed"),
    ],
)
def test_training_options_of_the_command_line(name: str, text: str, value: object) -> None:
    run = RunConfig.of({"store": "cases", name: parse_option(text)})
    assert getattr(run.training, name) == value
    assert type(getattr(run.training, name)) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("views", "coronal", ("coronal",)),
        ("views", "axial,sagittal", ("axial", "sagittal")),
        ("views", "[axial, sagittal]", ("axial", "sagittal")),
        ("fold", "null", None),
        ("model_options", "{max_pool: false}", {"max_pool": False}),
        ("imagenet", "hub", "hub"),
        ("protocol", "nih", "nih"),
    ],
)
def test_run_options_of_the_command_line(name: str, text: str, value: object) -> None:
    assert getattr(RunConfig.of({"store": "cases", name: parse_option(text)}), name) == value


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"epocs": 3, "lr": 1}, "expected options among store, model, .*, workers, got 'epocs', 'lr'"),
        ({"epochs": "x"}, "expected `epochs` to be an integer, got 'x'"),
        ({"epochs": 2.5}, "expected `epochs` to be an integer, got 2.5"),
        ({"epochs": True}, "expected `epochs` to be an integer, got True"),
        ({"learning_rate": False}, "expected `learning_rate` to be a number, got False"),
        ({"jitter": 1}, "expected `jitter` to be true or false, got 1"),
        ({"patience": "None"}, "expected `patience` to be an integer or null, got 'None'"),
        ({"model": "unet"}, "expected `model` to be 'mll' or 'mln' or 'rstn', got 'unet'"),
        (
            {"views": "axial,top"},
            "expected `views` to be a list of 'axial' or 'coronal' or 'sagittal', got 'axial,top'",
        ),
        ({"views": []}, "expected `views` to name at least one view, each once, got none"),
        ({"views": ["axial", "axial"]}, "expected `views` to name at least one view, each once, got axial, axial"),
        ({"store": 3}, "expected `store` to be text, got 3"),
        ({"model_options": [1]}, r"expected `model_options` to be a mapping, got \[1\]"),
        (
            {"alpha": {"start": 0}},
            "expected `alpha` to be a number or {start: …, stop: …, step: …} or {epoch: …, before: …, after: …}, "
            "got {'start': 0}",
        ),
        ({"beta": {"epoch": 3, "until": 4}}, "expected `beta` to be a number or .*, got {'epoch': 3, 'until': 4}"),
        ({"beta": {"epoch": 3.5}}, "expected `beta` to be a number or .*, got {'epoch': 3.5}"),
    ],
)
def test_wrong_options_are_named(option: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        RunConfig.of({"store": "cases"} | option)


def test_a_run_needs_a_store() -> None:
    with pytest.raises(ValueError, match="expected `store` to be the folder that the prepare command wrote, got none"):
        RunConfig.of({"model": "mll"})


def test_a_written_configuration_is_the_same_run(tmp_path: Path) -> None:
    run = RunConfig.of(
        {"store": "cases", "model": "mln", "views": "sagittal", "learning_rate": "3e-5", "alpha": {"epoch": 2}}
    )
    write_config(run, tmp_path / "config.yaml")
    assert RunConfig.of(read_options(tmp_path / "config.yaml")) == run
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_every_option_is_written_explained_and_read() -> None:
    run = RunConfig(Path("cases"))
    options = run.as_dict()
    expected = {each.name for each in (*fields(RunConfig), *fields(TrainingConfig))} - {"training"}
    assert options.keys() == option_help().keys() == expected
    assert all(option_help().values())
    assert all(parse_option(write_option(value)) == value for value in options.values())
    assert "None" not in "".join(option_help().values())


def test_a_file_that_holds_no_options(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("- epochs\n")
    with pytest.raises(
        ValueError, match=rf"expected {re.escape(str(path))} to hold a mapping of options, got \['epochs'\]"
    ):
        read_options(path)


def test_text_that_is_no_yaml_is_named_as_it_stands() -> None:
    with pytest.raises(ValueError, match=r"expected `views` to be a list of .*, got '\[axial'"):
        RunConfig.of({"store": "cases", "views": parse_option("[axial")})


def test_options_that_a_resumption_may_change() -> None:
    run = RunConfig(Path("cases"))
    moved = RunConfig(Path("elsewhere"), views=("axial",), training=TrainingConfig(epochs=30, patience=2, workers=3))
    assert changed_options(run.as_dict(), moved.as_dict()) == []
    other = RunConfig(Path("cases"), width=8, training=TrainingConfig(seed=1))
    assert changed_options(run.as_dict(), other.as_dict()) == ["seed 1 instead of 0", "width 8 instead of 64"]


def cases(names: list[str]) -> list[Case]:
    voxel = np.zeros((1, 1, 1), dtype=np.float32)
    return [Case(name, name, voxel, voxel > 0, (1.0, 1.0, 1.0)) for name in names]


def test_splits() -> None:
    given = cases([f"case{number:02d}" for number in range(10)])
    run = RunConfig(Path("cases"), folds=5, fold=3, validation=0.25)
    assert run.split(given) == folds(given, 5, validation=0.25)[3]
    assert [case.name for case in run.split(given).test] == ["case06", "case07"]
    assert RunConfig(Path("cases"), fold=None).split(given) == split_by_patient(given, validation=0.1, test=0)
    seeds = [RunConfig(Path("cases"), training=TrainingConfig(seed=seed)).split(given) for seed in (0, 1)]
    assert seeds[0] == seeds[1]
    with pytest.raises(ValueError, match="expected `fold` to be 0 to 3, got 4"):
        RunConfig(Path("cases"), fold=4).split(given)


def test_splits_of_the_paper() -> None:
    given = cases([f"PANCREAS_{number:04d}" for number in range(1, 83) if number not in (25, 70)])
    tested = [RunConfig(Path("cases"), protocol="nih", fold=fold).split(given).test for fold in range(4)]
    assert [len(each) for each in tested] == [20, 19, 21, 20]
