from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

import reference.baselines.vnet
from reference.baselines.vnet import VNetConfig, label_box, segment_vnet, train_vnet, vnet
from reference.data import Case

CONFIG = VNetConfig(steps=60, patch_size=(16, 16, 16), learning_rate=0.05, accelerator="cpu")


def ball(seed: int) -> Case:
    generator = np.random.default_rng(seed)
    grid = np.indices((14, 40, 37)) - np.array([7, *generator.integers(15, 24, 2)]).reshape(3, 1, 1, 1)
    label = (grid**2).sum(0) < 30
    image = (1000 * (0.2 * generator.random(label.shape) + 0.5 * label)).astype(np.int16)
    return Case(f"ball{seed}", f"ball{seed}", image, label, (1.0, 1.0, 1.0), window=(0, 1000))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """V-Net's place is taken by a network that learns balls in a second."""
    monkeypatch.setattr(
        reference.baselines.vnet,
        "vnet",
        lambda: nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Dropout(0.1), nn.ReLU(), nn.Conv3d(4, 1, 1)),
    )


def test_the_box_of_a_label() -> None:
    label = np.zeros((10, 50, 60), dtype=np.bool_)
    label[4, 25:28, 30] = True
    assert label_box(label, margin=0) == (slice(4, 5), slice(25, 28), slice(30, 31))
    assert label_box(label) == (slice(0, 10), slice(5, 48), slice(10, 51))
    with pytest.raises(ValueError, match="expected `label` to hold at least one voxel, got none"):
        label_box(np.zeros((3, 3, 3), dtype=np.bool_))


@pytest.mark.usefixtures("small")
def test_training_and_segmentation() -> None:
    model, losses = train_vnet([ball(1), ball(2)], CONFIG)
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    case = ball(3)
    box = label_box(case.label, margin=3)
    for looked, outside in ((box, 0.0), (None, None)):
        probability = segment_vnet(model, case.intensities(), box=looked, patch_size=(16, 16, 16))
        assert probability.shape == case.label.shape
        assert probability.dtype == np.float32
        found = probability >= 0.5
        assert 2 * (found & case.label).sum() / (found.sum() + case.label.sum()) > 0.9
        elsewhere = np.ones_like(case.label)
        elsewhere[box] = False
        assert outside is None or (probability[elsewhere] == outside).all()


@pytest.mark.usefixtures("small")
def test_the_seed_decides() -> None:
    cases = [ball(1), ball(2)]
    config = VNetConfig(steps=3, patch_size=(16, 16, 16), accelerator="cpu", seed=4)
    before = torch.get_rng_state()
    losses = train_vnet(cases, config)[1]
    assert torch.get_rng_state().equal(before)
    torch.rand(5)
    assert train_vnet(cases, config)[1] == losses
    assert train_vnet(cases, VNetConfig(**(vars(config) | {"seed": 5})))[1] != losses


def test_monai_network() -> None:
    with torch.device("meta"):
        network = vnet()
        assert network(torch.empty(2, 1, 32, 48, 16)).shape == (2, 1, 32, 48, 16)
    model, losses = train_vnet([ball(1)], VNetConfig(steps=1, patch_size=(16, 16, 16), accelerator="cpu"))
    assert np.isfinite(losses).all()
    probability = segment_vnet(model, ball(1).intensities()[:, :20, :20], patch_size=(16, 16, 16))
    assert probability.shape == (14, 20, 20)
    assert 0 < probability.std() < 1


def test_no_cases() -> None:
    with pytest.raises(ValueError, match=re.escape("expected `cases` to hold at least one case, got none")):
        train_vnet([], CONFIG)
