"""Every picture is drawn, of the size asked for, with its marks where they belong."""

import cv2
import numpy as np
import pytest

from reference.history import EpochRecord
from reference.plots import Overlay, draw_convergence, draw_curves, draw_overlays


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
