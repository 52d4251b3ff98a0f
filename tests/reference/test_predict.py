"""Masks lie exactly on the voxels of the scans they were predicted from."""

import re

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bright import bright_model, write_run, write_store
from scans import write_series, write_volume
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

import reference.runs
from reference.__main__ import app
from reference.models import build_model

OBLIQUE = Rotation.from_euler("xyz", (10, -20, 35), degrees=True).as_matrix()
FLIPPED = np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]])


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(reference.runs, "load_model", bright_model)
    return write_run(tmp_path / "run", write_store(tmp_path / "store", 1))


@pytest.fixture
def scan():
    """HU with one bright block, of sizes that no stride divides."""
    array = np.full((13, 37, 43), -60, dtype=np.int16)
    array[4:9, 11:22, 17:30] = 180
    return array


def predict(*arguments):
    # Wide enough not to break messages; without the frame around errors.
    arguments = ["predict", *map(str, arguments), "--accelerator", "cpu"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "1000", "TERM": "dumb"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, re.sub(r"\s+", " ", result.output)


def assert_lies_on(mask_path, scan_path, expected, atol=1e-12):
    mask = sitk.ReadImage(str(mask_path))
    scan = sitk.ReadImage(str(scan_path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), expected)
    assert mask.GetPixelID() == sitk.sitkUInt8
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(mask, name)(), getattr(scan, name)(), rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("direction", [np.eye(3), FLIPPED, OBLIQUE], ids=["straight", "flipped", "oblique"])
@pytest.mark.parametrize(("suffix", "dtype"), [(".nii.gz", np.int16), (".nrrd", np.float32), (".mha", np.float64)])
def test_geometry_is_kept(tmp_path, run, scan, suffix, dtype, direction):
    path = tmp_path / f"scan{suffix}"
    write_volume(path, scan.astype(dtype), (4.5, 0.7, 1.3), (-12.5, 40.0, 7.25), direction)
    code, output = predict(path, "--run", run, "-o", tmp_path / f"mask{suffix}")
    assert code == 0, output
    # NIfTI keeps an oblique direction as a quaternion in single precision.
    assert_lies_on(tmp_path / f"mask{suffix}", path, scan == 180, atol=1e-6 if suffix == ".nii.gz" else 1e-12)
    assert f"{(scan == 180).sum()} voxels, {(scan == 180).sum() * 4.5 * 0.7 * 1.3 / 1000:.1f} ml, 1 rounds" in output


def test_a_dicom_series(tmp_path, run, scan):
    files = write_series(tmp_path / "series", scan, (2.5, 0.7, 1.3), intercept=0)
    code, output = predict(tmp_path / "series", "--run", run, "-o", tmp_path / "mask.nii.gz")
    assert code == 0, output
    mask = sitk.ReadImage(str(tmp_path / "mask.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), scan == 180)
    assert mask.GetSize() == (43, 37, len(files))
    np.testing.assert_allclose(mask.GetSpacing(), (1.3, 0.7, 2.5), atol=1e-6)


def test_unsigned_and_single_slices(tmp_path, run, scan):
    """16 bits without a sign, where the window of the run would find everything bright; one slice."""
    shifted = (scan[6:7].astype(np.int32) + 1024).astype(np.uint16)
    write_volume(tmp_path / "scan.nii.gz", shifted)
    out = tmp_path / "mask.nii.gz"
    code, output = predict(tmp_path / "scan.nii.gz", "--run", run, "-o", out, "--window", "924,1264")
    assert code == 0, output
    assert_lies_on(out, tmp_path / "scan.nii.gz", scan[6:7] == 180)


def test_an_empty_prediction_warns_and_is_written(tmp_path, run, scan):
    write_volume(tmp_path / "scan.nii.gz", np.full_like(scan, -100))
    code, output = predict(tmp_path / "scan.nii.gz", "--run", run, "-o", tmp_path / "mask.nii.gz")
    assert code == 0
    assert "scan.nii.gz: round 0 found no organ: the prediction is empty" in output
    assert_lies_on(tmp_path / "mask.nii.gz", tmp_path / "scan.nii.gz", np.zeros_like(scan))


def test_several_scans_of_which_one_cannot_be_read(tmp_path, run, scan):
    write_volume(tmp_path / "scans" / "a.nii.gz", scan)
    broken = scan.astype(np.float32)
    broken[0, 0, 0] = np.nan
    write_volume(tmp_path / "scans" / "b.nrrd", broken)
    write_volume(tmp_path / "scans" / "c.mha", scan)
    code, output = predict(tmp_path / "scans", "--run", run, "-o", tmp_path / "masks")
    assert code == 1
    assert re.search(r"b\.nrrd: expected .* to hold finite intensities, got 1 others", output)
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["a.nii.gz", "c.nii.gz"]
    assert_lies_on(tmp_path / "masks" / "c.nii.gz", tmp_path / "scans" / "c.mha", scan == 180)


def test_shards(tmp_path, run, scan, monkeypatch):
    for name in "abc":
        write_volume(tmp_path / "scans" / f"{name}.nii.gz", scan)
    arguments = (tmp_path / "scans", "--run", run, "-o", tmp_path / "masks")
    assert predict(*arguments, "--shard", "1/2")[0] == 0
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["b.nii.gz"]
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert predict(*arguments)[0] == 0
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    assert "expected `shard` to be i/n with i from 0 to n − 1, got '2/2'" in predict(*arguments, "--shard", "2/2")[1]


def test_a_run_that_was_trained_on_resized_slices(tmp_path, monkeypatch):
    monkeypatch.setattr(reference.runs, "load_model", bright_model)
    run = write_run(tmp_path / "run", write_store(tmp_path / "store", 1, size=20), axes=(0,))
    array = np.full((3, 40, 30), -60, dtype=np.int16)
    array[1, 10:20, 4:14] = 180
    write_volume(tmp_path / "scan.nii.gz", array)
    code, output = predict(tmp_path / "scan.nii.gz", "--run", run, "-o", tmp_path / "mask.nii.gz")
    assert code == 0, output
    # Halved, the block has whole pixels, and so has the mask, twice as large.
    assert_lies_on(tmp_path / "mask.nii.gz", tmp_path / "scan.nii.gz", array == 180)


def test_percentiles_and_channels(tmp_path, monkeypatch, scan):
    monkeypatch.setattr(reference.runs, "load_model", bright_model)
    run = write_run(tmp_path / "run", write_store(tmp_path / "store", 1, window="percentiles", channel=1))
    volume = sitk.JoinSeries([sitk.GetImageFromArray(values) for values in (0.0 * scan, 7.5 * scan)])
    sitk.WriteImage(volume, str(tmp_path / "scan.nii.gz"))
    code, output = predict(tmp_path / "scan.nii.gz", "--run", run, "-o", tmp_path / "mask.nii.gz")
    assert code == 0, output
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "mask.nii.gz"))), scan == 180)


def test_a_run_that_does_not_say_and_whose_store_is_gone_needs_a_window(tmp_path, run, scan):
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    write_volume(tmp_path / "scan.nii.gz", scan)
    arguments = (tmp_path / "scan.nii.gz", "--run", run, "-o", tmp_path / "mask.nii.gz")
    code, output = predict(*arguments)
    assert code == 2
    assert "the run's store, found none: say --window" in output
    assert predict(*arguments, "--window", "-100,240")[0] == 0
    assert_lies_on(tmp_path / "mask.nii.gz", tmp_path / "scan.nii.gz", scan == 180)


def test_refusals(tmp_path, run, scan):
    write_volume(tmp_path / "a" / "scan.nii.gz", scan)
    write_volume(tmp_path / "b" / "scan.nrrd", scan)
    write_volume(tmp_path / "small.nii.gz", scan[:4, :4, :4])
    one, two, mask = tmp_path / "a" / "scan.nii.gz", tmp_path / "b" / "scan.nrrd", tmp_path / "mask.nii.gz"
    for arguments, message in (
        ((tmp_path / "none.nii", "--run", run, "-o", mask), "expected a scan at .*none.nii, found none"),
        ((one, "--run", run, "-o", tmp_path / "mask.png"), "to be a file that ends in .nii.gz, .nii, .nrrd or .mha"),
        ((one, two, "--run", run, "-o", mask), "expected --out to be a folder for several scans"),
        ((one, two, "--run", run, "-o", tmp_path), "expected scans of different names, got scan more than once"),
        ((one, "--run", tmp_path / "b", "-o", mask), "expected a run with config.yaml at"),
        ((one, "--run", run, "-o", mask, "--window", "5"), "expected LO,HI or percentiles, got '5'"),
    ):
        code, output = predict(*arguments)
        assert code == 2, output
        assert re.search(message, output), output
    code, output = predict(tmp_path / "small.nii.gz", "--run", run, "-o", mask)
    assert code == 1
    assert "to have a side of at least 9 pixels" in output


def test_the_models_of_a_real_run(tmp_path, scan):
    run = write_run(tmp_path / "run", write_store(tmp_path / "store", 1), axes=(0, 2))
    for axis in (0, 2):
        model = build_model("mln", width=2, num_points=16, generator=torch.Generator().manual_seed(axis))
        torch.save({"model": model.state_dict(), "model_config": model.config}, run / f"axis{axis}" / "best.ckpt")
    trained = reference.runs.read_run(run, "best", torch.device("cpu"))
    assert list(trained.models) == [0, 2]
    assert trained.models[2].config == model.config
    for name, value in trained.models[2].state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    write_volume(tmp_path / "scan.nii.gz", scan)
    code, output = predict(tmp_path / "scan.nii.gz", "--run", run, "-o", tmp_path / "mask.nii.gz", "--tmax", 1)
    assert code == 0, output
    assert sitk.ReadImage(str(tmp_path / "mask.nii.gz")).GetSize() == (43, 37, 13)
    (run / "axis2" / "best.ckpt").write_bytes(b"half a file")
    assert re.search(
        r"axis2/best.ckpt to be a checkpoint", predict(tmp_path / "scan.nii.gz", "--run", run, "-o", "m.nii")[1]
    )
