"""Every picture is drawn, of the size asked for, with its marks where they belong."""

import cv2
import numpy as np
import pytest

from reference.history import EpochRecord
from reference.plots import (
    Overlay,
    draw_convergence,
    draw_curves,
    draw_overlaps,
    draw_overlays,
    draw_selection,
)


def record(epoch):
    return EpochRecord(
        epoch, "J" if epoch else "S", 1e-3, 0.5, 0.0, 0.0, 1.0, 0.9 - epoch / 10, 0.8, 0.1, None, None, 0.5, 0.6, 1.0
    )


def read(path):
    pixels = cv2.imread(str(path))
    assert pixels is not None
    return pixels


@pytest.mark.parametrize("epochs", [1, 3])
def test_curves(tmp_path, epochs):
    draw_curves(tmp_path / "curves.png", {"mll": [record(epoch) for epoch in range(epochs)]}, "title")
    assert read(tmp_path / "curves.png").std() > 5


def test_convergence(tmp_path):
    draw_convergence(tmp_path / "c.png", {"a": [0.1, 0.5], "b": [0.2]}, {"a": [0.9], "b": []}, "title")
    assert read(tmp_path / "c.png").std() > 5


def test_convergence_of_folds_has_a_red_average(tmp_path):
    lines = {"fold 1": [0.5, 0.7], "fold 2": [0.6, 0.8], "average": [0.55, 0.75]}
    for average, red in (("average", True), (None, False)):
        draw_convergence(tmp_path / "c.png", lines, lines, "title", average=average)
        pixels = read(tmp_path / "c.png").astype(int)
        assert ((abs(pixels - (0x00, 0x00, 0xD5)).max(axis=2) < 30).sum() > 200) == red


@pytest.fixture
def overlay():
    image = np.full((40, 60), 0.5, dtype=np.float32)
    truth, prediction = np.zeros((2, 40, 60), dtype=bool)
    truth[10:20, 10:30] = True
    prediction[12:24, 14:36] = True
    points = np.random.default_rng(0).uniform(10, 35, (500, 2))
    return Overlay(image, truth, prediction, points, prediction.astype(np.float32))


def test_overlaps_are_red_green_and_yellow(tmp_path, overlay):
    draw_overlaps(tmp_path / "o.png", {"case": {"a": overlay, "b": overlay}}, "title")
    pixels = read(tmp_path / "o.png").astype(int)
    # 0.4 of gray 0.5 and 0.6 of a colour, on 72, 136 and 128 pixels of the slice.
    counts = [
        (abs(pixels - np.multiply(color, 255)).max(axis=2) < 4).sum()
        for color in ((0.2, 0.2, 0.8), (0.2, 0.68, 0.2), (0.2, 0.8, 0.8))
    ]
    assert counts[2] > 3000
    np.testing.assert_allclose(np.divide(counts, counts[2]), np.divide((72, 136, 128), 128), rtol=0.1)


def test_selection_shows_points_where_they_are_uncertain(tmp_path, overlay):
    draw_selection(tmp_path / "s.png", overlay, "title")
    pixels = read(tmp_path / "s.png").astype(int)
    assert (abs(pixels - (0xFF, 0xC4, 0x40)).max(axis=2) < 40).sum() > 100
    with pytest.raises(ValueError, match="expected `overlay` to have a probability, got None"):
        draw_selection(
            tmp_path / "s.png", Overlay(overlay.image, overlay.truth, overlay.truth, overlay.points), "title"
        )


def test_overlays_show_truth_prediction_and_points(tmp_path):
    image = np.full((40, 60), 0.5, dtype=np.float32)
    truth, prediction = np.zeros((2, 40, 60), dtype=bool)
    truth[10:20, 10:30] = True
    prediction[12:24, 14:36] = True
    points = np.random.default_rng(0).uniform(10, 35, (500, 2))
    rows = {"case": {"a": Overlay(image, truth, prediction, points), "b": Overlay(image, truth, ~truth, points)}}
    draw_overlays(tmp_path / "o.png", rows, "title")
    pixels = read(tmp_path / "o.png").astype(int)
    for color in ((0x76, 0xE6, 0x00), (0x81, 0x40, 0xFF), (0xFF, 0xC4, 0x40)):  # B, G, R of truth, prediction, points
        assert (abs(pixels - color).max(axis=2) < 40).sum() > 100


def test_overlays_of_empty_masks(tmp_path):
    nothing = np.zeros((40, 60), dtype=bool)
    image = np.zeros((40, 60), dtype=np.float32)
    draw_overlays(tmp_path / "o.png", {"x": {"a": Overlay(image, nothing, nothing, np.zeros((0, 2)))}}, "title")
    assert read(tmp_path / "o.png").size
