"""The commands as the documentation lists them, one after the other, on made volumes that are stored turned."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scans import write_volume
from typer.testing import CliRunner

from reference.__main__ import app

TURNED = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
GEOMETRY = {"spacing": (4.0, 2.0, 1.5), "origin": (-20.0, 31.5, 7.0), "direction": TURNED}


def call(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300", "TERM": "dumb"})
    if result.exception:
        raise result.exception
    return result.output


@pytest.fixture
def data(tmp_path):
    """Four volumes of a bright box in noise, where it is in each of them."""
    rng = np.random.default_rng(0)
    for number in range(4):
        label = np.zeros((9, 24, 32), np.uint8)
        label[3:7, 6:14, 8 + number : 18 + number] = 1
        image = (label * 200 - 50 + rng.normal(0, 5, label.shape)).astype(np.int16)
        for part, array in (("imagesTr", image), ("labelsTr", label)):
            write_volume(tmp_path / "data" / part / f"case{number}.nii.gz", array, **GEOMETRY)
    return tmp_path / "data"


def test_from_a_data_set_to_a_mask_in_its_geometry(tmp_path, data):
    store, run = tmp_path / "store", tmp_path / "run"
    assert "4 written" in call("prepare", data, store, "--window", "-100,240")
    assert "0 of them suspicious" in call("check", store, "--out", tmp_path / "check")
    options = (
        "--width",
        4,
        "--epochs",
        24,
        "--learning-rate",
        3e-3,
        "--alpha",
        0.0,
        "--beta",
        0.0,
        "--accelerator",
        "cpu",
    )
    call("train", store, "--out", run, *options)
    tables = call("evaluate", store, "--run", run, "-o", tmp_path / "results", "--checkpoint", "last")
    assert "Region loss, ours, on store" in tables
    store.rename(tmp_path / "elsewhere")  # A run knows by itself how its scans were read.
    scan, mask = data / "imagesTr" / "case0.nii.gz", tmp_path / "mask.nii.gz"  # Of the fold that was left out.
    call("predict", scan, "--run", run, "-o", mask, "--checkpoint", "last")
    predicted, given = (sitk.ReadImage(str(path)) for path in (mask, scan))
    for geometry in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(predicted, geometry)() == pytest.approx(getattr(given, geometry)())
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(data / "labelsTr" / "case0.nii.gz"))) > 0
    found = sitk.GetArrayFromImage(predicted) > 0
    assert 2 * (found & label).sum() / (found.sum() + label.sum()) > 0.8  # Turned or shifted, it would miss.
