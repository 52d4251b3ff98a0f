"""Readers and units, and what they say of bad input."""

import cv2
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from reference.data import (
    Case,
    SliceUnits,
    neighbor_slices,
    percentile_window,
    read_image_folder,
    read_nifti_folder,
    resize_slices,
    scale_intensities,
)


def make_case(name="a", patient=None, shape=(3, 5, 7), seed=0, spacing=(5.0, 2.0, 1.0), label=None):
    rng = np.random.default_rng(seed)
    image = rng.random(shape, dtype=np.float32)
    return Case(name, patient or name, image, rng.random(shape) > 0.5 if label is None else label, spacing)


def write_pair(folder, name="PANCREAS_0001-1", image=None, mask=None, suffix=".png", mask_suffix=None):
    image = np.arange(63, dtype=np.uint8).reshape(7, 9) if image is None else image
    mask = np.where(np.arange(63).reshape(7, 9) % 9 > 4, 255, 0).astype(np.uint8) if mask is None else mask
    for part, pixels, ending in (("images", image, suffix), ("masks", mask, mask_suffix or suffix)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / part / (name + ending)), pixels)


def write_volume(path, array, spacing=(1.0, 1.0, 1.0), direction=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = sitk.GetImageFromArray(array)
    volume.SetSpacing(spacing[::-1])
    if direction is not None:
        volume.SetDirection(direction)
    sitk.WriteImage(volume, str(path))


def write_nifti_pair(folder, name="spleen_1", image=None, mask=None, suffix=".nii.gz", **geometry):
    image = np.arange(60, dtype=np.int16).reshape(3, 4, 5) * 10 - 300 if image is None else image
    mask = (np.arange(60).reshape(3, 4, 5) % 3).astype(np.uint8) if mask is None else mask
    write_volume(folder / "imagesTr" / (name + suffix), image, **geometry)
    write_volume(folder / "labelsTr" / (name + suffix), mask, **geometry)


class TestCase:
    def test_names_the_case_and_both_shapes(self):
        with pytest.raises(
            ValueError, match=r"^b: expected `image` and `label` to have one shape \(D, H, W\), got \(3"
        ):
            make_case("b", label=np.zeros((3, 5, 6), dtype=bool))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"image": np.zeros((3, 5, 7), dtype=complex)},
                "floating and `label` bool, got complex128 and bool",
            ),
            ({"image": np.zeros((3, 5, 7), dtype=bool)}, "floating and `label` bool, got bool and bool"),
            ({"label": np.zeros((3, 5, 7), dtype=np.uint8)}, "got float32 and uint8"),
            (
                {"window": (3.0, 3.0)},
                r"^a: expected `window` to be \(lo, hi\) with hi .*, got \(3.0, 3.0\)",
            ),
            ({"spacing": (1.0, 0.0, 1.0)}, r"3 positive values \(D, H, W\), got \(1.0, 0.0, 1.0\)"),
            ({"spacing": (1.0, 1.0)}, r"3 positive values \(D, H, W\), got \(1.0, 1.0\)"),
        ],
    )
    def test_rejects(self, changes, message):
        case = make_case()
        fields = {"image": case.image, "label": case.label, "spacing": case.spacing} | changes
        with pytest.raises(ValueError, match=message):
            Case("a", "a", **fields)

    @pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float16", "float32", "float64"])
    def test_intensities_of_a_part_by_hand(self, dtype):
        image = np.array([[[0, 20], [50, 100]], [[110, 120], [60, 10]]], dtype=dtype)
        case = Case("a", "a", image, image > 0, (1.0, 1.0, 1.0), window=(10.0, 110.0))
        expected = np.array([[[0, 0.1], [0.4, 0.9]], [[1, 1], [0.5, 0]]], dtype=np.float32)
        for index in (..., 1, slice(0, 1), np.array([1, 1, 0]), (slice(None), np.array([0, 0, 1])), (0, slice(1), 1)):
            part = case.intensities(index)
            assert part.dtype == np.float32
            np.testing.assert_array_equal(part, expected[index])
        np.testing.assert_array_equal(case.image, image)

    def test_intensities_between_0_and_1_stay_bit_for_bit(self):
        case = make_case()
        np.testing.assert_array_equal(case.intensities(), case.image)
        assert not np.shares_memory(case.intensities(), case.image)

    def test_resizing_averages_the_image_and_takes_the_majority_of_the_mask(self):
        image = np.array([[[0, 1, 0.5, 0.5], [0, 1, 0.5, 0.5]]], dtype=np.float32)
        label = np.array([[[1, 1, 1, 0], [0, 0, 0, 0]]], dtype=bool)
        small = resize_slices(Case("a", "a", image, label, (5.0, 1.0, 2.0), (-1.0, 2.0)), 2)
        np.testing.assert_array_equal(small.image, [[[0.5, 0.5]]])
        np.testing.assert_array_equal(small.label, [[[True, False]]])
        assert small.spacing == (5.0, 2.0, 4.0)
        assert (small.name, small.patient, small.window) == ("a", "a", (-1.0, 2.0))

    def test_resizing_keeps_the_extent_of_odd_sizes(self):
        case = make_case(shape=(2, 31, 53))
        small = resize_slices(case, 17)
        assert small.image.shape == small.label.shape == (2, 10, 17)
        np.testing.assert_allclose(np.multiply(small.spacing, (2, 10, 17)), np.multiply(case.spacing, (2, 31, 53)))
        large = resize_slices(case, 101)
        assert large.image.shape == (2, 59, 101)
        assert abs(large.label.mean() - case.label.mean()) < 0.05

    def test_resizing_to_the_same_size_changes_nothing(self):
        case = make_case()
        assert resize_slices(case, 7) is case
        with pytest.raises(ValueError, match="expected `size` to be a positive number of pixels, got 0"):
            resize_slices(case, 0)

    def test_scaling_clips_to_the_window(self):
        scaled = scale_intensities(np.array([-1000, -100, 70, 240, 3000], dtype=np.int16), (-100, 240))
        assert scaled.dtype == np.float32
        np.testing.assert_array_equal(scaled, np.array([0, 0, 0.5, 1, 1], dtype=np.float32))

    def test_percentiles_as_a_window(self):
        assert percentile_window(np.arange(1001)) == (5, 995)

    @pytest.mark.parametrize("window", [(1, 1), (5, 2), (float("nan"), 1.0), (0.0, float("inf")), (1.0,)])
    def test_scaling_rejects(self, window):
        with pytest.raises(ValueError, match=r"expected `window` to be \(lo, hi\) with hi greater than lo, got"):
            scale_intensities(np.arange(3), window)

    @pytest.mark.parametrize(("values", "got"), [([7, 7, 7], r"\(7.0, 7.0\)"), ([1, 2, np.nan], r"\(nan, nan\)")])
    def test_a_volume_without_percentiles_to_take_says_why(self, values, got):
        with pytest.raises(ValueError, match=f"with hi greater than lo, got {got}"):
            percentile_window(np.array(values))


class TestImageFolder:
    def test_values_names_and_patients(self, tmp_path):
        write_pair(tmp_path, "PANCREAS_0002-1090")
        write_pair(tmp_path, "PANCREAS_0002-2")
        write_pair(tmp_path, "a-b-7")
        write_pair(tmp_path, "alone", suffix=".tif", mask_suffix=".png")
        cases = read_image_folder(tmp_path)
        assert [case.name for case in cases] == ["PANCREAS_0002-1090", "PANCREAS_0002-2", "a-b-7", "alone"]
        assert [case.patient for case in cases] == ["PANCREAS_0002", "PANCREAS_0002", "a-b", "alone"]
        for case in cases:
            np.testing.assert_array_equal(case.image[0], np.arange(63, dtype=np.uint8).reshape(7, 9))
            np.testing.assert_allclose(case.intensities(0), np.arange(63).reshape(7, 9) / 255, atol=1e-7)
            np.testing.assert_array_equal(case.label[0], np.arange(63).reshape(7, 9) % 9 > 4)
            assert case.spacing == (1.0, 1.0, 1.0)

    def test_jpeg_masks_are_cut_at_the_threshold(self, tmp_path):
        mask = np.zeros((32, 48), dtype=np.uint8)
        mask[9:23, 13:31] = 255
        write_pair(tmp_path, image=mask, mask=mask, suffix=".jpg")
        assert len(np.unique(cv2.imread(str(tmp_path / "masks" / "PANCREAS_0001-1.jpg"), 0))) > 2
        np.testing.assert_array_equal(read_image_folder(tmp_path)[0].label[0], mask > 0)

    def test_threshold(self, tmp_path):
        write_pair(tmp_path, mask=np.full((7, 9), 100, dtype=np.uint8))
        assert not read_image_folder(tmp_path)[0].label.any()
        assert read_image_folder(tmp_path, threshold=99)[0].label.all()

    def test_size(self, tmp_path):
        write_pair(tmp_path, image=np.full((20, 40), 51, dtype=np.uint8), mask=np.full((20, 40), 255, dtype=np.uint8))
        case = read_image_folder(tmp_path, size=10)[0]
        assert case.image.shape == (1, 5, 10)
        np.testing.assert_allclose(case.intensities(), 0.2)
        assert case.label.all()
        assert case.spacing == (1.0, 4.0, 4.0)

    def test_hidden_files_and_other_kinds_are_left_out(self, tmp_path):
        write_pair(tmp_path)
        (tmp_path / "images" / "._PANCREAS_0001-1.png").write_bytes(b"resource fork")
        (tmp_path / "masks" / "notes.txt").write_text("nothing")
        assert len(read_image_folder(tmp_path)) == 1

    def test_missing_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"expected a folder at .*absent/images, found none"):
            read_image_folder(tmp_path / "absent")
        (tmp_path / "images").mkdir()
        (tmp_path / "masks").mkdir()
        with pytest.raises(ValueError, match=r"expected files ending in \.jpg, .* in .*images, found none"):
            read_image_folder(tmp_path)

    def test_image_without_mask_and_mask_without_image(self, tmp_path):
        for name in ("a", "b", "c"):
            write_pair(tmp_path, name)
        (tmp_path / "masks" / "b.png").unlink()
        (tmp_path / "masks" / "c.png").unlink()
        with pytest.raises(ValueError, match=r"a mask for .*images/b\.png in .*masks, found none \(and 1 more\)$"):
            read_image_folder(tmp_path)
        for name in ("b", "c"):
            (tmp_path / "images" / f"{name}.png").unlink()
        (tmp_path / "images" / "a.png").unlink()
        write_pair(tmp_path, "d")
        with pytest.raises(ValueError, match=r"expected an image for .*masks/a\.png in .*images, found"):
            read_image_folder(tmp_path)

    def test_two_files_of_one_name(self, tmp_path):
        write_pair(tmp_path, "a", suffix=".png")
        write_pair(tmp_path, "a", suffix=".jpg")
        with pytest.raises(ValueError, match=r"expected one file named 'a' in .*images, got a\.jpg and a\.png"):
            read_image_folder(tmp_path)

    def test_shapes_that_differ(self, tmp_path):
        write_pair(tmp_path, mask=np.zeros((7, 8), dtype=np.uint8))
        with pytest.raises(
            ValueError, match=r"masks/PANCREAS_0001-1.png to have the shape of its image, \(7, 9\), got"
        ):
            read_image_folder(tmp_path)

    @pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".tif", ".tiff"])
    @pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.95])
    def test_truncated_files_are_named(self, tmp_path, suffix, share):
        noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
        write_pair(tmp_path, "whole", image=noise, mask=noise, suffix=suffix)
        write_pair(tmp_path, "torn", image=noise, mask=noise, suffix=suffix)
        torn = tmp_path / "images" / f"torn{suffix}"
        torn.write_bytes(torn.read_bytes()[: int(share * torn.stat().st_size)])
        with pytest.raises(ValueError, match=rf"expected .*images/torn{suffix} to be a whole image, but it"):
            read_image_folder(tmp_path)

    def test_jpeg_cut_behind_an_embedded_thumbnail_is_truncated(self, tmp_path):
        write_pair(tmp_path, suffix=".jpg")
        path = tmp_path / "images" / "PANCREAS_0001-1.jpg"
        whole = path.read_bytes()
        thumbnail = b"\xff\xe1" + (2 + len(whole)).to_bytes(2, "big") + whole
        path.write_bytes(whole[:2] + thumbnail + whole[2:])
        assert len(read_image_folder(tmp_path)) == 1
        path.write_bytes(path.read_bytes()[:-2])
        with pytest.raises(ValueError, match="it is truncated"):
            read_image_folder(tmp_path)

    def test_not_an_image(self, tmp_path):
        write_pair(tmp_path)
        (tmp_path / "masks" / "PANCREAS_0001-1.png").write_text("not an image")
        with pytest.raises(
            ValueError, match=r"masks/PANCREAS_0001-1.png to be a whole image, but it cannot be decoded"
        ):
            read_image_folder(tmp_path)

    def test_more_than_8_bits(self, tmp_path):
        write_pair(tmp_path, image=np.full((7, 9), 1000, dtype=np.uint16))
        with pytest.raises(ValueError, match=r"images/PANCREAS_0001-1.png to have 8 bits a pixel, got uint16"):
            read_image_folder(tmp_path)


class TestNiftiFolder:
    @pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
    def test_window_labels_and_axis_order(self, tmp_path, suffix):
        write_nifti_pair(tmp_path, suffix=suffix, spacing=(5.0, 0.5, 0.75))
        (case,) = read_nifti_folder(tmp_path, window=(-100, 240), labels=(2,))
        values = np.arange(60).reshape(3, 4, 5)
        np.testing.assert_array_equal(case.image, (values * 10 - 300).astype(np.int16))
        assert case.window == (-100, 240)
        np.testing.assert_array_equal(case.label, values % 3 == 2)
        assert case.spacing == pytest.approx((5.0, 0.5, 0.75))
        assert (case.name, case.patient) == ("spleen_1", "spleen_1")
        (both,) = read_nifti_folder(tmp_path, window=(-100, 240), labels=(1, 2))
        np.testing.assert_array_equal(both.label, values % 3 > 0)

    def test_orientation_is_made_the_same(self, tmp_path):
        write_nifti_pair(tmp_path, "as_is")
        write_nifti_pair(tmp_path, "flipped", direction=(-1, 0, 0, 0, 1, 0, 0, 0, -1))
        as_is, flipped = read_nifti_folder(tmp_path, window=(-300, 300))
        np.testing.assert_array_equal(flipped.image, as_is.image[::-1, :, ::-1])
        np.testing.assert_array_equal(flipped.label, as_is.label[::-1, :, ::-1])

    def test_size_is_in_plane(self, tmp_path):
        write_nifti_pair(tmp_path, image=np.zeros((3, 8, 4), np.int16), mask=np.ones((3, 8, 4), np.uint8))
        (case,) = read_nifti_folder(tmp_path, window=(-1, 1), size=4)
        assert case.image.shape == (3, 4, 2)
        assert case.spacing == (1.0, 2.0, 2.0)

    @pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
    @pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.95])
    def test_truncated_files_are_named(self, tmp_path, suffix, share):
        noise = np.random.default_rng(0).integers(0, 1000, (8, 16, 16)).astype(np.int16)
        write_nifti_pair(tmp_path, image=noise, mask=np.zeros((8, 16, 16), np.uint8), suffix=suffix)
        torn = tmp_path / "imagesTr" / f"spleen_1{suffix}"
        torn.write_bytes(torn.read_bytes()[: int(share * torn.stat().st_size)])
        with pytest.raises(ValueError, match=rf"expected .*imagesTr/spleen_1{suffix} to be a .*volume, but it"):
            read_nifti_folder(tmp_path, window=(-100, 240))

    def test_missing_folder_and_missing_partner(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"expected a folder at .*imagesTr, found none"):
            read_nifti_folder(tmp_path, window=None)
        write_nifti_pair(tmp_path)
        (tmp_path / "labelsTr" / "spleen_1.nii.gz").rename(tmp_path / "labelsTr" / "spleen_2.nii.gz")
        with pytest.raises(
            ValueError, match=r"expected a mask for .*imagesTr/spleen_1.nii.gz in .*labelsTr, found none$"
        ):
            read_nifti_folder(tmp_path, window=None)

    def test_shapes_and_positions_that_differ(self, tmp_path):
        write_nifti_pair(tmp_path, mask=np.zeros((3, 4, 6), np.uint8))
        with pytest.raises(ValueError, match=r"shape of its image, \(3, 4, 5\), got \(3, 4, 6\)"):
            read_nifti_folder(tmp_path, window=None)
        write_nifti_pair(tmp_path)
        write_volume(tmp_path / "labelsTr" / "spleen_1.nii.gz", np.zeros((3, 4, 5), np.uint8), spacing=(1.0, 1.0, 2.0))
        with pytest.raises(
            ValueError,
            match=r"labelsTr/spleen_1.nii.gz to lie where its image lies, .* differ by 1 mm$",
        ):
            read_nifti_folder(tmp_path, window=None)

    def test_not_three_axes(self, tmp_path):
        write_nifti_pair(
            tmp_path, image=np.zeros((4, 5), np.int16), mask=np.zeros((4, 5), np.uint8), spacing=(1.0, 1.0)
        )
        with pytest.raises(
            ValueError, match=r"to be a 3-D volume of one value a voxel, got size 5×4 and 1 values a voxel"
        ):
            read_nifti_folder(tmp_path, window=None)


class TestSliceUnits:
    def test_channels_are_neighbors_and_never_another_volume(self):
        cases = [make_case("a", seed=1), make_case("b", seed=2)]
        units = SliceUnits(cases, keep=1.0)
        assert len(units) == 6
        for case, offset in zip(cases, (0, 3), strict=True):
            for j, neighbors in enumerate(([0, 0, 1], [0, 1, 2], [1, 2, 2])):
                unit = units[offset + j]
                np.testing.assert_array_equal(unit["image"].numpy(), case.image[neighbors])
                np.testing.assert_array_equal(unit["label"].numpy(), case.label[neighbors])
                assert unit["image"].dtype == unit["label"].dtype == unit["spacing"].dtype == torch.float32
                np.testing.assert_array_equal(unit["spacing"].numpy(), [2, 1])

    def test_single_slices_repeat_themselves(self):
        case = make_case(shape=(1, 5, 7))
        unit = SliceUnits([case])[0]
        np.testing.assert_array_equal(unit["image"].numpy(), np.repeat(case.image, 3, axis=0))

    @pytest.mark.parametrize(("axis", "shape", "spacing"), [(1, (3, 3, 7), [5, 1]), (2, (3, 3, 5), [5, 2])])
    def test_other_axes(self, axis, shape, spacing):
        case = make_case()
        unit = SliceUnits([case], axis=axis, keep=1.0)[1]
        assert unit["image"].shape == shape
        np.testing.assert_array_equal(unit["image"].numpy(), np.moveaxis(case.image, axis, 0)[:3])
        np.testing.assert_array_equal(unit["spacing"].numpy(), spacing)

    def test_keeps_the_slices_with_most_organ(self):
        label = np.zeros((10, 6, 6), dtype=bool)
        for j, pixels in enumerate([0, 5, 1, 9, 36, 2, 8, 7, 0, 3]):
            label[j].flat[:pixels] = True
        case = make_case(shape=label.shape, label=label)
        assert SliceUnits([case], keep=1.0).slices == [(0, j) for j in (1, 2, 3, 4, 5, 6, 7, 9)]
        assert SliceUnits([case], keep=0.75).slices == [(0, j) for j in (1, 3, 4, 6, 7, 9)]
        assert SliceUnits([case], keep=0.01).slices == [(0, 4)]

    def test_drops_2_percent_by_default_of_these_cases_alone(self):
        label = np.ones((100, 2, 2), dtype=bool)
        label[[17, 42], 0, 0] = False
        units = SliceUnits([make_case(shape=label.shape, label=label)])
        assert units.slices == [(0, j) for j in range(100) if j not in (17, 42)]

    def test_rejects(self):
        case = make_case()
        with pytest.raises(
            ValueError, match="expected `cases` to hold at least one case, got none: the split is empty"
        ):
            SliceUnits([])
        with pytest.raises(ValueError, match="to show the organ somewhere, but all 1 labels are empty"):
            SliceUnits([make_case(label=np.zeros((3, 5, 7), dtype=bool))])
        with pytest.raises(ValueError, match="expected `axis` to be 0, 1 or 2, got 3"):
            SliceUnits([case], axis=3)
        with pytest.raises(ValueError, match="expected `keep` to be greater than 0 and at most 1, got 0"):
            SliceUnits([case], keep=0)

    def test_neighbors_of_a_slice(self):
        assert neighbor_slices(0, 1).tolist() == [0, 0, 0]
        assert neighbor_slices(4, 5).tolist() == [3, 4, 4]


@pytest.mark.data
class TestRealData:
    def test_pancreas_slices(self, data):
        cases = read_image_folder(data / "nih_pancreas_2d", size=128)
        assert len(cases) == 206
        assert len({case.patient for case in cases}) == 46
        assert all(case.image.shape == (1, 128, 128) for case in cases)
        assert sum(case.label.any() for case in cases) > 200
        assert 0.002 < np.mean([case.label.mean() for case in cases]) < 0.006
        assert cases[0].spacing == (1.0, 4.0, 4.0)

    def test_hippocampus_volumes(self, data, tmp_path):
        files = sorted((data / "hippocampus_3d" / "imagesTr").iterdir())[:20]
        for part in ("imagesTr", "labelsTr"):
            (tmp_path / part).mkdir()
            for file in files:
                (tmp_path / part / file.name).symlink_to(data / "hippocampus_3d" / part / file.name)
        cases = read_nifti_folder(tmp_path, window=None, labels=(2,))
        assert [case.name + ".nii.gz" for case in cases] == [file.name for file in files]
        assert all(case.spacing == pytest.approx((1.0, 1.0, 1.0)) for case in cases)
        assert 800 < np.median([case.label.sum() for case in cases]) < 2400
