"""What is wrong with a data set is said and drawn before anybody trains on it."""

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scans import write_series, write_volume
from typer.testing import CliRunner

from reference.__main__ import app
from reference.data import Case, make_phantom
from reference.data.flips import FLIPS
from reference.data.inspection import inspect_case
from reference.data.overlays import draw_pages, organ_panels
from reference.data.store import write_case


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(3, size=64, depth=10)


def run(*arguments):
    result = CliRunner().invoke(app, ["check", *map(str, arguments)], env={"COLUMNS": "1000", "TERM": "dumb"})
    return result.exit_code, re.sub(r"\s+", " ", result.output)


class TestInspection:
    def test_figures_by_hand(self):
        label = np.zeros((2, 3, 4), dtype=bool)
        label[0, 1, 1:3] = True
        image = np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 5
        found = inspect_case(Case("a", "p", image, label, (5.0, 2.0, 0.5), (-5.0, 18.0)))
        assert (found.name, found.shape, found.spacing) == ("a", (2, 3, 4), (5.0, 2.0, 0.5))
        assert (found.voxels, found.milliliters, found.lowest, found.highest) == (2, 0.01, -5, 18)

    def test_a_phantom_is_not_suspicious(self, phantom):
        assert inspect_case(phantom).warnings == []

    @pytest.mark.parametrize("flip", FLIPS[1:])
    def test_a_flipped_label(self, phantom, flip):
        (warning,) = inspect_case(replace(phantom, label=np.flip(phantom.label, flip))).warnings
        axes = "".join("zyx"[axis] for axis in flip)
        assert re.match(
            rf"the label would meet an organ better if flipped along {axes}: correlation 0\.\d\d, here", warning
        )

    def test_a_label_off_the_body(self, phantom):
        label = np.zeros_like(phantom.label)
        label[2:6, :4, :4] = True
        assert (
            "100% of the organ is below the window: is it on the body, and the window right?"
            in inspect_case(replace(phantom, label=label)).warnings
        )

    def test_a_wrong_window(self, phantom):
        found = inspect_case(replace(phantom, window=(-1000.0, -500.0))).warnings
        assert "100% of the organ is above the window: is it on the body, and the window right?" in found

    def test_a_label_in_noise(self):
        noise = np.random.default_rng(0).normal(50, 30, (10, 40, 40))
        label = np.zeros(noise.shape, dtype=bool)
        label[3:6, 10:20, 12:25] = True
        (warning,) = inspect_case(Case("a", "a", noise, label, (1.0, 1.0, 1.0), (-100.0, 240.0))).warnings
        assert re.fullmatch(r"the label does not stand out from what is around it: correlation -?0\.0\d", warning)

    def test_an_empty_label(self, phantom):
        assert inspect_case(replace(phantom, label=np.zeros_like(phantom.label))).warnings == ["the label is empty"]

    @pytest.mark.parametrize(
        ("spacing", "odd"),
        [
            ((5.0, 0.6, 0.6), None),
            ((12.0, 2.5, 2.5), "odd spacing: 2.5 to 12 mm"),
            ((1.0, 0.05, 0.05), "odd spacing: 0.05 to 1 mm"),
            ((8.0, 0.5, 0.5), "odd spacing: 0.5 to 8 mm"),
        ],
    )
    def test_odd_spacing(self, phantom, spacing, odd):
        assert inspect_case(replace(phantom, spacing=spacing)).warnings == ([odd] if odd else [])

    def test_single_slices_have_none(self, phantom):
        flat = replace(phantom, image=phantom.image[4:5], label=phantom.label[4:5], spacing=(1.0, 40.0, 40.0))
        assert inspect_case(flat).warnings == []

    @pytest.mark.data
    def test_the_torso(self, data, tmp_path):
        for part, file in (("images", "ct.nii.gz"), ("labels", "labels.nii.gz")):
            (tmp_path / part).mkdir()
            (tmp_path / part / "torso.nii.gz").symlink_to(data / "torso_ct_3mm" / file)
        for label, name, voxels in (("10", "pancreas", 818), ("1", "spleen", 9677)):
            code, output = run(tmp_path, "--window=-100,240", "--labels", label, "--out", tmp_path / name)
            assert code == 0
            assert f"torso 112×101×122 3×3×3 {voxels:,} {27e-3 * voxels:.2f}" in output
            assert "1 cases, 0 of them suspicious; 0 damaged; 1 pages" in output


class TestOverlays:
    def test_the_slices_with_most_organ_head_up(self):
        image = np.arange(60, dtype=np.float32).reshape(3, 4, 5) / 60
        label = np.zeros((3, 4, 5), dtype=bool)
        label[2, 1, 1:4] = label[0, 3, 3] = True
        axial, coronal, sagittal = organ_panels(Case("a", "a", image, label, (6.0, 3.0, 2.0)))
        assert [panel.title for panel in (axial, coronal, sagittal)] == [
            "a\naxial 3 of 3",
            "a\ncoronal 2 of 4",
            "a\nsagittal 4 of 5",
        ]
        np.testing.assert_array_equal(axial.image, image[2])
        np.testing.assert_array_equal(coronal.image, image[::-1, 1])
        np.testing.assert_array_equal(sagittal.image, image[::-1, :, 3])
        np.testing.assert_array_equal(sagittal.label, label[::-1, :, 3])
        assert [panel.aspect for panel in (axial, coronal, sagittal)] == [1.5, 3.0, 2.0]

    def test_a_page_shows_the_outline_on_the_organ(self, tmp_path):
        image = np.full((1, 40, 50), 0.2, dtype=np.float32)
        label = np.zeros((1, 40, 50), dtype=bool)
        label[0, 5:15, 30:45] = True
        (path,) = draw_pages(tmp_path, organ_panels(Case("a", "a", image, label, (1.0, 1.0, 1.0))))
        picture = cv2.imread(str(path)).astype(int)
        green = np.argwhere(picture[..., 1] - picture[..., 2] > 100)
        gray = (picture == 51).all(axis=2)
        rows, columns = (np.nonzero(gray.sum(axis=axis) > 50)[0] for axis in (1, 0))  # Letters have a few such pixels.
        top, left = rows[0], columns[0]
        scale = (len(rows) / 40, len(columns) / 50)
        np.testing.assert_allclose((green.min(axis=0) - (top, left)) / scale, (5, 30), atol=1)
        np.testing.assert_allclose((green.max(axis=0) - (top, left)) / scale, (15, 45), atol=1)

    def test_twelve_a_page(self, tmp_path, phantom):
        panels = organ_panels(phantom) * 5
        assert [path.name for path in draw_pages(tmp_path, panels)] == ["overlays-001.png", "overlays-002.png"]
        assert list(draw_pages(tmp_path, [])) == []

    def test_empty_and_full_labels(self, tmp_path, phantom):
        for label in (np.zeros_like(phantom.label), np.ones_like(phantom.label)):
            assert len(list(draw_pages(tmp_path, organ_panels(replace(phantom, label=label))))) == 1


class TestCommand:
    def test_a_store(self, tmp_path, phantom):
        store, out = tmp_path / "store", tmp_path / "out"
        write_case(store, phantom, {})
        write_case(store, replace(phantom, name="turned", label=phantom.label[:, ::-1]), {})
        code, output = run(store, "--out", out)
        assert code == 0
        voxels = int(phantom.label.sum())
        row = (
            f"phantom-0003 10×64×64 6×5×5 {voxels:,} {voxels * 0.15:.2f} {phantom.image.min()} to {phantom.image.max()}"
        )
        assert row in output
        assert "turned: the label would meet an organ better if flipped along y: correlation 0." in output
        assert "2 cases, 1 of them suspicious; 0 damaged; 1 pages in" in output
        assert [path.name for path in out.iterdir()] == ["overlays-001.png"]

    def test_a_data_set_with_a_damaged_case(self, tmp_path, phantom):
        for name in "ab":
            write_volume(tmp_path / "data" / "images" / f"{name}.nrrd", phantom.image, phantom.spacing)
            write_volume(tmp_path / "data" / "labels" / f"{name}.nrrd", phantom.label.astype(np.uint8), phantom.spacing)
        torn = tmp_path / "data" / "images" / "a.nrrd"
        torn.write_bytes(torn.read_bytes()[:-100])
        code, output = run(tmp_path / "data", "--out", tmp_path / "out", "--window=-100,240")
        assert code == 1
        assert re.search(r"a is damaged: expected \S+a.nrrd to be a volume, but it cannot be read", output)
        assert "1 cases, 0 of them suspicious; 1 damaged; 1 pages in" in output

    def test_nih(self, tmp_path, phantom):
        write_series(tmp_path / "data" / "PANCREAS_0001", phantom.image, phantom.spacing)
        write_volume(tmp_path / "data" / "label0001.nii.gz", phantom.label[:, ::-1].astype(np.uint8))
        code, output = run(tmp_path / "data", "--out", tmp_path / "out")
        assert code == 0
        assert "1 cases, 0 of them suspicious" in output

    def test_nothing_to_check(self, tmp_path):
        code, output = run(tmp_path, "--out", tmp_path / "out")
        assert code == 2
        assert "to hold imagesTr and labelsTr" in output
        assert not (tmp_path / "out").exists()
