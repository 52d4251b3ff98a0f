"""Every layout is recognised and read, and says what it lacks."""

import json

import cv2
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scans import write_series, write_volume

from reference.data import make_phantom
from reference.data.layouts import (
    Reading,
    check_labels,
    default_window,
    detect_layout,
    find_sources,
    read_source,
)

IMAGE = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
MASK = (IMAGE % 3).astype(np.uint8)
CT = Reading((-100.0, 240.0))


def write_task(folder, names=("spleen_10", "spleen_2"), **changes):
    for name in names:
        write_volume(folder / "imagesTr" / f"{name}.nii.gz", IMAGE)
        write_volume(folder / "labelsTr" / f"{name}.nii.gz", MASK)
    task = {
        "name": "Spleen",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "spleen"},
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names],
        "test": ["./imagesTs/spleen_1.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(task | changes))


class TestDecathlon:
    def test_cases_of_a_task(self, tmp_path):
        write_task(tmp_path)
        (tmp_path / "imagesTr" / "._spleen_2.nii.gz").write_bytes(b"resource fork")
        assert detect_layout(tmp_path) == "msd"
        sources = find_sources(tmp_path)
        assert [(source.layout, source.patient, source.pair.name) for source in sources] == [
            ("msd", name, name) for name in ("spleen_10", "spleen_2")
        ]
        case = read_source(sources[0], Reading((-125.0, 275.0), labels=(1, 2)))
        np.testing.assert_array_equal(case.image, IMAGE)
        np.testing.assert_array_equal(case.label, MASK > 0)
        assert case.window == (-125, 275)
        assert case.geometry.size == (5, 4, 3)

    @pytest.mark.parametrize(
        ("name", "modality", "window"),
        [
            ("Spleen", {"0": "CT"}, (-125, 275)),
            ("Task09_Spleen", {"0": "CT"}, (-125, 275)),
            ("Pancreas", {"0": "CT"}, (-100, 240)),
            ("Hippocampus", {"0": "MRI"}, "percentiles"),
            ("Prostate", {"0": "T2", "1": "ADC"}, "percentiles"),
        ],
    )
    def test_window(self, tmp_path, name, modality, window):
        write_task(tmp_path, name=name, modality=modality)
        assert default_window(tmp_path, "msd") == window

    def test_labels_that_the_task_has(self, tmp_path):
        write_task(tmp_path)
        check_labels(tmp_path, "msd", (1,))
        with pytest.raises(ValueError, match=r"some of 0 \(background\), 1 \(spleen\), got 2"):
            check_labels(tmp_path, "msd", (1, 2))

    def test_listed_cases_that_are_not_there(self, tmp_path):
        write_task(tmp_path, training=[{"image": "./imagesTr/spleen_3.nii.gz", "label": "./labelsTr/spleen_3.nii.gz"}])
        with pytest.raises(
            ValueError, match=r"imagesTr/spleen_3.nii.gz and .*, as dataset.json lists them, found none"
        ):
            find_sources(tmp_path)
        write_task(tmp_path, training=[])
        with pytest.raises(ValueError, match=r"dataset.json to list its training cases, found none"):
            find_sources(tmp_path)

    def test_a_damaged_description(self, tmp_path):
        write_task(tmp_path)
        (tmp_path / "dataset.json").write_text('{"name": ')
        for read in (find_sources, lambda folder: default_window(folder, "msd")):
            with pytest.raises(
                ValueError, match=r"expected .*dataset.json to describe the task in JSON, but it cannot"
            ):
                read(tmp_path)

    def test_channels(self, tmp_path):
        write_task(tmp_path, names=("prostate_1",))
        both = sitk.JoinSeries([sitk.GetImageFromArray(IMAGE), sitk.GetImageFromArray(IMAGE + 7)])
        sitk.WriteImage(both, str(tmp_path / "imagesTr" / "prostate_1.nii.gz"))
        (source,) = find_sources(tmp_path)
        with pytest.raises(ValueError, match=r"prostate_1.nii.gz to be a 3-D volume .* choose one of its channels"):
            read_source(source, CT)
        case = read_source(source, Reading("percentiles", channel=1))
        np.testing.assert_array_equal(case.image, IMAGE + 7)
        assert case.window == tuple(np.percentile(IMAGE + 7, (0.5, 99.5)))


class TestVolumes:
    def test_formats_may_differ(self, tmp_path):
        write_volume(tmp_path / "images" / "a.nrrd", IMAGE, (2.0, 1.5, 1.0))
        write_volume(tmp_path / "labels" / "a.nii.gz", MASK, (2.0, 1.5, 1.0))
        write_series(tmp_path / "images" / "b.1", IMAGE, (2.0, 1.5, 1.0))
        write_volume(tmp_path / "labels" / "b.1.nii", MASK, (2.0, 1.5, 1.0))
        assert detect_layout(tmp_path) == "nifti"
        sources = find_sources(tmp_path)
        assert [source.pair.name for source in sources] == ["a", "b.1"]
        for source in sources:
            case = read_source(source, CT)
            np.testing.assert_array_equal(case.image, IMAGE)
            np.testing.assert_array_equal(case.label, MASK == 1)
            assert case.spacing == (2.0, 1.5, 1.0)

    def test_image_and_labels_stored_in_other_orders(self, tmp_path):
        for part, array, code in (("images", IMAGE, "RAS"), ("labels", MASK, "PIR")):
            (tmp_path / part).mkdir()
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((1.0, 1.5, 2.0))
            sitk.WriteImage(sitk.DICOMOrient(image, code), str(tmp_path / part / "a.nii.gz"))
        case = read_source(find_sources(tmp_path)[0], CT)
        np.testing.assert_array_equal(case.image, IMAGE)
        np.testing.assert_array_equal(case.label, MASK == 1)

    @pytest.mark.parametrize(
        ("geometry", "message"),
        [
            ({"origin": (0.0, 0.2, 0.0)}, "got an origin 0.2 mm away and steps between voxels that differ by 0 mm"),
            ({"spacing": (1.0, 1.0, 1.01)}, "got an origin 0 mm away and steps between voxels that differ by 0.01 mm"),
            ({"direction": np.diag([-1.0, 1, 1])}, "got an origin 4 mm away"),
        ],
    )
    def test_labels_that_lie_elsewhere(self, tmp_path, geometry, message):
        write_volume(tmp_path / "images" / "a.nrrd", IMAGE)
        write_volume(tmp_path / "labels" / "a.nrrd", MASK, **geometry)
        with pytest.raises(ValueError, match=f"labels/a.nrrd to lie where its image lies, {message}"):
            read_source(find_sources(tmp_path)[0], CT)

    def test_rounding_of_the_header_is_none_of_it(self, tmp_path):
        write_volume(tmp_path / "images" / "a.nrrd", IMAGE)
        write_volume(tmp_path / "labels" / "a.nrrd", MASK, origin=(1e-4, 0.0, 0.0), spacing=(1.0, 1 + 1e-6, 1.0))
        read_source(find_sources(tmp_path)[0], CT)

    def test_probabilities_are_no_labels(self, tmp_path):
        write_volume(tmp_path / "images" / "a.nrrd", IMAGE)
        write_volume(tmp_path / "labels" / "a.nrrd", MASK.astype(np.float32))
        np.testing.assert_array_equal(read_source(find_sources(tmp_path)[0], CT).label, MASK == 1)
        write_volume(tmp_path / "labels" / "a.nrrd", MASK * np.float32(0.5))
        with pytest.raises(ValueError, match=r"labels/a.nrrd to hold whole numbers, got others: it is no label map"):
            read_source(find_sources(tmp_path)[0], CT)

    def test_there_is_no_telling_the_window(self, tmp_path):
        with pytest.raises(
            ValueError, match=r"expected a window, such as -100,240 \(HU\) for CT or percentiles for MR"
        ):
            default_window(tmp_path, "nifti")

    def test_size(self, tmp_path):
        write_volume(tmp_path / "images" / "a.nrrd", IMAGE)
        write_volume(tmp_path / "labels" / "a.nrrd", MASK)
        case = read_source(find_sources(tmp_path)[0], Reading((0.0, 1.0), size=10))
        assert case.image.shape == (3, 8, 10)
        assert case.geometry is None


class TestThinAndThick:
    def test_cases_of_one_name_are_one_patient(self, tmp_path):
        for thickness, names in (("thin", "12"), ("thick", "23")):
            for name in names:
                write_volume(tmp_path / thickness / "images" / f"{name}.nii.gz", IMAGE)
                write_volume(tmp_path / thickness / "labels" / f"{name}.nii.gz", MASK)
        assert detect_layout(tmp_path) == "isicdm"
        assert default_window(tmp_path, "isicdm") == (-100, 240)
        sources = find_sources(tmp_path)
        assert [(source.pair.name, source.patient) for source in sources] == [
            ("thick-2", "2"),
            ("thick-3", "3"),
            ("thin-1", "1"),
            ("thin-2", "2"),
        ]
        cases = [read_source(source, CT) for source in sources]
        assert [(case.name, case.patient) for case in cases] == [
            (source.pair.name, source.patient) for source in sources
        ]

    def test_one_of_them_alone(self, tmp_path):
        (tmp_path / "thin").mkdir()
        with pytest.raises(
            FileNotFoundError, match=r"imagesTr and labelsTr, or images and labels, in .*thin, found neither"
        ):
            find_sources(tmp_path)


def test_single_slices(tmp_path):
    for part, pixels in (("images", np.arange(20, dtype=np.uint8)), ("masks", np.full(20, 255, np.uint8))):
        (tmp_path / part).mkdir()
        cv2.imwrite(str(tmp_path / part / "PANCREAS_0001-7.png"), pixels.reshape(4, 5))
    assert detect_layout(tmp_path) == "images2d"
    (source,) = find_sources(tmp_path)
    assert (source.patient, source.pair.name) == ("PANCREAS_0001", "PANCREAS_0001-7")
    case = read_source(source, Reading(default_window(tmp_path, "images2d")))
    np.testing.assert_array_equal(case.image[0], np.arange(20).reshape(4, 5))
    assert case.window == (0, 255)
    assert case.label.all()


def test_nih(tmp_path):
    phantom = make_phantom(0, size=48, depth=6)
    write_series(tmp_path / "PANCREAS_0001" / "a", phantom.image, phantom.spacing)
    write_volume(tmp_path / "labels" / "label0001.nii.gz", phantom.label[:, ::-1].astype(np.uint8))
    assert detect_layout(tmp_path) == "nih"
    (source,) = find_sources(tmp_path)
    np.testing.assert_array_equal(read_source(source, CT).label, phantom.label)


def test_no_layout(tmp_path):
    with pytest.raises(ValueError, match=r"to hold imagesTr and labelsTr, .*, or PANCREAS_0001 …, found none of these"):
        detect_layout(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"expected a folder at .*absent, found none"):
        detect_layout(tmp_path / "absent")
