"""Scans of every format come out in one orientation, and masks go back onto exactly the voxels they came from."""

import gzip
import itertools
import re

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scans import write_series, write_volume
from scipy.spatial.transform import Rotation

from reference.data import read_scan, write_like

ORIGIN = (-170.25, 31.5, 1200.125)
SPACING = (2.5, 0.75, 0.625)
ORIENTATIONS = [
    "".join(p) for letters in itertools.permutations(("LR", "AP", "IS")) for p in itertools.product(*letters)
]


def values(shape=(4, 5, 6), dtype=np.int16, seed=0):
    return np.random.default_rng(seed).integers(0, 2000, shape).astype(dtype)


def oriented(code: str):
    """The same volume, stored with its axes running as `code` says."""
    image = sitk.GetImageFromArray(values())
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin(ORIGIN)
    return sitk.DICOMOrient(image, code)


def geometry(path):
    image = sitk.ReadImage(str(path))
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


def test_every_orientation_is_needed():
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("code", ORIENTATIONS)
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_every_orientation_comes_out_the_same_and_goes_back(tmp_path, code, suffix):
    stored = oriented(code)
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(stored, str(path))
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.image, values())
    assert scan.image.dtype == np.int16
    assert scan.image.flags.c_contiguous
    assert scan.spacing == pytest.approx(SPACING)
    mask = scan.image > 1000
    out = tmp_path / "out" / f"mask{suffix}"
    write_like(scan, mask, out)
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(sitk.ReadImage(str(out))), sitk.GetArrayFromImage(stored) > 1000
    )
    assert geometry(out) == geometry(path)
    np.testing.assert_array_equal(read_scan(out).image, mask)
    assert [file.name for file in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("seed", range(4))
def test_oblique_geometry_goes_back(tmp_path, suffix, seed):
    path, out = tmp_path / f"scan{suffix}", tmp_path / f"mask{suffix}"
    direction = Rotation.random(random_state=seed).as_matrix()
    write_volume(path, values(), SPACING, ORIGIN, direction)
    scan = read_scan(path)
    write_like(scan, scan.image > 1000, out)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(out))), values() > 1000)
    for ours, theirs in zip(geometry(out), geometry(path), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-7)


def test_canonical_axes_run_to_head_back_and_left(tmp_path):
    """An independent oracle: nibabel's world coordinates run to the right, front and head."""
    path = tmp_path / "scan.nii.gz"
    write_volume(path, values(), SPACING, ORIGIN, Rotation.from_euler("xyz", [8, -100, 170], degrees=True).as_matrix())
    scan = read_scan(path)
    image = nib.load(path)
    stored = np.asarray(image.dataobj)

    def place(value):
        return image.affine[:3, :3] @ np.argwhere(stored == value)[0]

    unique = [v for v in np.unique(stored) if (stored == v).sum() == 1]
    where = {v: np.argwhere(scan.image == v)[0] for v in unique}
    start = min(unique, key=lambda v: where[v].sum())
    for axis, toward in enumerate(((0, 0, 1), (0, -1, 0), (-1, 0, 0))):
        end = max(
            unique,
            key=lambda v: (where[v] - where[start])[axis] - np.abs(np.delete(where[v] - where[start], axis)).sum(),
        )
        step = place(end) - place(start)
        assert step @ toward > 0.7 * np.linalg.norm(step)


def test_sform_alone_keeps_the_affine(tmp_path):
    affine = np.diag([-0.75, 0.625, 2.5, 1.0])
    affine[:3, 3] = ORIGIN
    image = nib.Nifti1Image(values(), affine)
    image.set_qform(None, code=0)
    image.set_sform(affine, code=1)
    nib.save(image, tmp_path / "scan.nii.gz")
    scan = read_scan(tmp_path / "scan.nii.gz")
    write_like(scan, scan.image > 7, tmp_path / "mask.nii.gz")
    out = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(out.affine, affine)
    np.testing.assert_array_equal(np.asarray(out.dataobj), values() > 7)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_dtypes_are_kept(tmp_path, dtype, suffix):
    array = (values() % 100).astype(dtype)
    if dtype.startswith("float"):
        array /= 7
    write_volume(tmp_path / f"scan{suffix}", array)
    scan = read_scan(tmp_path / f"scan{suffix}")
    assert scan.image.dtype == dtype
    np.testing.assert_array_equal(scan.image, array)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_one_slice(tmp_path, suffix):
    write_volume(tmp_path / f"scan{suffix}", values((1, 5, 6)), SPACING)
    scan = read_scan(tmp_path / f"scan{suffix}")
    assert scan.image.shape == (1, 5, 6)
    write_like(scan, scan.image > 1000, tmp_path / f"mask{suffix}")
    assert geometry(tmp_path / f"mask{suffix}") == geometry(tmp_path / f"scan{suffix}")


class TestChannels:
    @pytest.fixture
    def path(self, tmp_path):
        volumes = [sitk.GetImageFromArray(values(seed=seed)) for seed in range(2)]
        sitk.WriteImage(sitk.JoinSeries(volumes), str(tmp_path / "scan.nii.gz"))
        return tmp_path / "scan.nii.gz"

    def test_one_has_to_be_chosen(self, path):
        with pytest.raises(
            ValueError, match=r"3-D volume of one value a voxel, got size 6×5×4×2 and 1 .* choose one of"
        ):
            read_scan(path)
        np.testing.assert_array_equal(read_scan(path, channel=1).image, values(seed=1))
        with pytest.raises(ValueError, match=r"expected `channel` to be one of the 2 of .*scan.nii.gz, got 2"):
            read_scan(path, channel=2)

    def test_a_fourth_axis_of_1_is_none(self, tmp_path):
        sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(values())]), str(tmp_path / "scan.nii.gz"))
        np.testing.assert_array_equal(read_scan(tmp_path / "scan.nii.gz").image, values())

    def test_colors(self, tmp_path):
        image = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), dtype=np.uint8), isVector=True)
        sitk.WriteImage(image, str(tmp_path / "scan.nrrd"))
        with pytest.raises(ValueError, match="got size 6×5×4 and 3 values a voxel"):
            read_scan(tmp_path / "scan.nrrd")


class TestDamaged:
    @pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
    @pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.99])
    def test_truncated(self, tmp_path, suffix, share):
        path = tmp_path / f"scan{suffix}"
        write_volume(path, values((20, 21, 22)))
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(ValueError, match=re.escape(f"expected {path} to be a ")):
            read_scan(path)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_not_finite(self, tmp_path, value):
        array = values(dtype=np.float32)
        array[1, 2, 3] = value
        write_volume(tmp_path / "scan.nrrd", array)
        with pytest.raises(ValueError, match="to hold finite intensities, got 1 others"):
            read_scan(tmp_path / "scan.nrrd")
        write_volume(tmp_path / "scan.nii.gz", array)
        assert read_scan(tmp_path / "scan.nii.gz").image[1, 2, 3] == 0  # ITK's reader of NIfTI says nothing.

    def test_complex(self, tmp_path):
        sitk.WriteImage(sitk.GetImageFromArray(values().astype(np.complex64)), str(tmp_path / "scan.nii.gz"))
        with pytest.raises(ValueError, match="to hold real numbers, got complex of 32-bit float"):
            read_scan(tmp_path / "scan.nii.gz")

    def test_nothing_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"expected a scan at .*absent.nii.gz, found none"):
            read_scan(tmp_path / "absent.nii.gz")

    def test_gzip_with_a_flipped_bit(self, tmp_path):
        path = tmp_path / "scan.nii.gz"
        write_volume(path, values((20, 21, 22)))
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
        with pytest.raises((gzip.BadGzipFile, ValueError)):
            read_scan(path)


class TestWriting:
    def test_rejects(self, tmp_path):
        write_volume(tmp_path / "scan.nii.gz", values())
        scan = read_scan(tmp_path / "scan.nii.gz")
        with pytest.raises(ValueError, match=r"the shape of the scan, \(4, 5, 6\), got \(4, 5, 7\)"):
            write_like(scan, np.zeros((4, 5, 7), dtype=bool), tmp_path / "mask.nii.gz")
        with pytest.raises(ValueError, match=r"expected `path` to end in .*, got mask.png"):
            write_like(scan, np.zeros((4, 5, 6), dtype=bool), tmp_path / "mask.png")

    def test_a_folder_in_the_way(self, tmp_path):
        write_volume(tmp_path / "scan.nii.gz", values())
        (tmp_path / "mask.nii.gz").mkdir()
        with pytest.raises(OSError, match=r"mask.nii.gz"):
            write_like(read_scan(tmp_path / "scan.nii.gz"), values() > 7, tmp_path / "mask.nii.gz")
        assert sorted(file.name for file in tmp_path.iterdir()) == ["mask.nii.gz", "scan.nii.gz"]


class TestDicom:
    @pytest.mark.parametrize("code", ["LPS", "LPI", "RPS", "RAI", "SLA", "PIR"])
    def test_orientations_go_back(self, tmp_path, code):
        stored = oriented(code)
        direction = np.reshape(stored.GetDirection(), (3, 3))
        if np.linalg.det(direction) < 0:  # A DICOM slice normal is the cross product of its axes.
            stored = stored[:, :, ::-1]
            direction = np.reshape(stored.GetDirection(), (3, 3))
        write_series(
            tmp_path / "a" / "b",
            sitk.GetArrayFromImage(stored),
            stored.GetSpacing()[::-1],
            stored.GetOrigin(),
            direction,
        )
        scan = read_scan(tmp_path)
        np.testing.assert_array_equal(scan.image, values())
        assert scan.spacing == pytest.approx(SPACING)
        write_like(scan, scan.image > 1000, tmp_path / "mask.nrrd")
        mask = sitk.ReadImage(str(tmp_path / "mask.nrrd"))
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "a" / "b")))
        series = reader.Execute()
        np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(series) > 1000)
        assert (mask.GetOrigin(), mask.GetDirection()) == (series.GetOrigin(), series.GetDirection())
        assert mask.GetSpacing() == pytest.approx(series.GetSpacing(), rel=1e-15)

    def test_rescale_intercept(self, tmp_path):
        write_series(tmp_path, values(), intercept=-1024)
        assert read_scan(tmp_path).image.min() >= 0  # The file holds what was given; SimpleITK undoes the intercept.

    def test_one_slice(self, tmp_path):
        write_series(tmp_path, values((1, 5, 6)), SPACING)
        assert read_scan(tmp_path).image.shape == (1, 5, 6)

    @pytest.mark.parametrize("number", range(1, 5))
    def test_a_missing_slice_is_seen(self, tmp_path, number):
        files = write_series(tmp_path, values((6, 5, 6)))
        files[number].unlink()
        with pytest.raises(
            ValueError, match=r"evenly spaced, about 1 mm, got 2 mm between .*: one is missing or doubled"
        ):
            read_scan(tmp_path)

    @pytest.mark.parametrize("number", [0, 2, 3])
    @pytest.mark.parametrize("left", [0, 100, 500, -1])
    def test_a_truncated_slice_is_named(self, tmp_path, number, left):
        files = write_series(tmp_path, values())
        files[number].write_bytes(files[number].read_bytes()[:left])
        with pytest.raises(ValueError, match=re.escape(f"expected {files[number]} to be a whole DICOM file, but it")):
            read_scan(tmp_path)

    def test_two_series(self, tmp_path):
        write_series(tmp_path / "a", values(), uid="1.2.3.4")
        write_series(tmp_path / "b", values(), uid="1.2.3.5")
        with pytest.raises(
            ValueError, match=r"expected one DICOM series in .*, found .*/a \(4 files\), .*/b \(4 files\)"
        ):
            read_scan(tmp_path)

    def test_an_empty_folder(self, tmp_path):
        with pytest.raises(ValueError, match=r"expected one DICOM series in .*, found none"):
            read_scan(tmp_path)

    def test_other_files_are_left_out(self, tmp_path):
        write_series(tmp_path, values())
        (tmp_path / "LICENSE").write_text("CC BY 3.0")
        (tmp_path / "._1.dcm").write_bytes(b"resource fork")
        assert read_scan(tmp_path).image.shape == (4, 5, 6)

    def test_names_without_suffix(self, tmp_path):
        for file in write_series(tmp_path, values()):
            file.rename(file.with_suffix(""))
        np.testing.assert_array_equal(read_scan(tmp_path).image, values())

    def test_a_tilted_gantry(self, tmp_path):
        sheared = np.array([[1, 0, 0], [0, 1, 0.2], [0, 0, 0.98]])
        write_series(tmp_path, values(), direction=sheared)
        with pytest.raises(ValueError, match=r"to lie straight above each other, got a shift of 0\.2 mm"):
            read_scan(tmp_path)
