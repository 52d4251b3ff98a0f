"""Fixtures shared by all tests."""

from pathlib import Path

import pytest
import torch

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def data() -> Path:
    """The folder of real data, which the project does not carry."""
    if not DATA.is_dir():
        pytest.skip(f"no real data: {DATA} is absent")
    return DATA
