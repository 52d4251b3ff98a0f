"""The Triton kernels on CPU tensors, in Triton's interpreter, which has to be chosen before triton is imported."""

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from multilevel_loss.distance import _naive

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip(
        "Triton kernels NOT tested: run TRITON_INTERPRET=1 python -m pytest tests/distance/test_triton_interpreter.py",
        allow_module_level=True,
    )
pytest.importorskip("triton")
from multilevel_loss.distance import _cuda

# 1-D to 3-D; odd, prime and degenerate sides; longer than one program's rows (8) and lanes (128).
SHAPES = [
    (3, 37),
    (2, 7, 11),
    (1, 11, 131),
    (2, 5, 6, 7),
    (1, 17, 3, 9),
    (1, 1, 1, 5),
    (1, 1, 50),
    (1, 50, 1),
    (3, 1, 1),
]


@pytest.fixture(autouse=True)
def _filled_memory() -> Iterator[None]:
    # Fills what torch.empty returns with NaN or the largest integer, so a kernel that reads what it never wrote fails.
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def assert_exact(inside: Tensor, spacing: Tensor | None, inner: bool) -> None:
    actual = _cuda.signed_distances(inside, spacing, inner)
    expected = _naive.signed_distances(inside, spacing, inner)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, rtol=0 if spacing is None else 2**-22, atol=0)
    assert not torch.signbit(actual[actual == 0]).any()


@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_noise_equals_brute_force(shape: tuple[int, ...], inner: bool) -> None:
    for density in (0.03, 0.5, 0.97):
        assert_exact(torch.rand(shape) < density, None, inner)


# About the powers of two that blocks are made of, and a prime.
@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize("side", [1023, 1024, 1025, 2048, 2053])
def test_long_rows_equal_brute_force(side: int, inner: bool) -> None:
    assert_exact(torch.rand(1, 2, side) < 0.02, None, inner)


# Two alone, for the interpreter is slow on columns.
@pytest.mark.parametrize("shape", [(1, 1023, 1), (1, 1025, 2)], ids=str)
def test_tall_columns_equal_brute_force(shape: tuple[int, ...]) -> None:
    assert_exact(torch.rand(shape) < 0.02, None, True)


@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize("shape", SHAPES[:5], ids=str)
def test_every_sample_has_its_own_spacing(shape: tuple[int, ...], inner: bool) -> None:
    spacing = torch.rand(shape[0], len(shape) - 1, dtype=torch.float64) * 3 + 0.1
    assert_exact(torch.rand(shape) < 0.2, spacing, inner)


def test_hand_worked_map() -> None:
    inside = torch.tensor([[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0]], dtype=torch.bool)[None]
    root = 2**0.5
    inner = [[root, 1, 1, 1, root], [1, 0, 0, 0, 1], [1, 0, -1, 0, 1], [1, 0, -1, 0, 1]]
    torch.testing.assert_close(_cuda.signed_distances(inside, None, True)[0], torch.tensor(inner), rtol=0, atol=0)
    either = [[root, 1, 1, 1, root], [1, -1, -1, -1, 1], [1, -1, -2, -1, 1], [1, -1, -2, -1, 1]]
    torch.testing.assert_close(_cuda.signed_distances(inside, None, False)[0], torch.tensor(either), rtol=0, atol=0)


@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize("spaced", [False, True])
def test_empty_full_single_voxel_and_border_in_one_batch(inner: bool, spaced: bool) -> None:
    inside = torch.zeros(6, 5, 6, 7, dtype=torch.bool)
    inside[1] = True
    inside[2, 2, 4, 3] = True
    inside[3] = True
    inside[3, 0, 5, 0] = False
    inside[4, 0] = True
    inside[5, ::4, ::5, ::6] = True
    spacing = torch.tensor([[3.0, 0.7, 0.7]], dtype=torch.float64).expand(6, 3) if spaced else None
    assert_exact(inside, spacing, inner)
    assert not _cuda.signed_distances(inside[:2], None, inner).any()


@pytest.mark.parametrize("inner", [True, False])
def test_one_row_seen_from_every_other(inner: bool) -> None:
    inside = torch.zeros(18, 18, 2, dtype=torch.bool)
    inside[:, :, 0] = torch.eye(18)
    assert_exact(inside, None, inner)
    inside[:, ::17, 1] = True  # too far to matter on the left, but now all rows lie within the bounds
    assert_exact(inside, torch.tensor([[1.0, 20.0]], dtype=torch.float64).expand(18, 2), inner)


@pytest.mark.parametrize("inner", [True, False])
def test_planes_without_a_feature_between_two_organs(inner: bool) -> None:
    inside = torch.zeros(1, 20, 6, 7, dtype=torch.bool)
    inside[0, :2, 1:4, 2:5] = True
    inside[0, 15:, 3:, :] = True
    assert_exact(inside, None, inner)


@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize("width", [7, 8, 9, 31, 32, 33])
def test_rows_longer_than_a_block(monkeypatch: pytest.MonkeyPatch, width: int, inner: bool) -> None:
    monkeypatch.setattr(_cuda, "_BLOCK", 8)
    inside = torch.rand(1, 5, width) < 0.05
    inside[0, 1] = torch.arange(width) < width - 1
    assert_exact(inside, None, inner)
    assert_exact(inside, torch.full((1, 2), 0.3, dtype=torch.float64), inner)


# A second block; squares beyond float32; squares beyond int32.
@pytest.mark.parametrize(("width", "inner"), [(1025, True), (4100, False), (32770, True)])
def test_distances_beyond_the_narrow_types(width: int, inner: bool) -> None:
    inside = torch.zeros(1, width, dtype=torch.bool)
    inside[0, 1:3] = True
    distance = _cuda.signed_distances(inside, None, inner)
    x = torch.arange(width, dtype=torch.float32)
    expected = torch.where(inside[0], 0.0 if inner else -1.0, torch.where(x < 1, 1 - x, x - 2))
    torch.testing.assert_close(distance[0], expected, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5), (2, 4, 3, 0)])
def test_no_voxels(shape: tuple[int, ...]) -> None:
    distance = _cuda.signed_distances(torch.zeros(shape, dtype=torch.bool), None, True)
    assert distance.shape == shape
    assert distance.dtype == torch.float32


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_flips_and_permutations_commute(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=3))
    bits = data.draw(st.lists(st.booleans(), min_size=(size := torch.Size(shape).numel()), max_size=size))
    inner = data.draw(st.booleans())
    inside = torch.tensor(bits).view(1, *shape)
    order = [0] + [axis + 1 for axis in data.draw(st.permutations(range(len(shape))))]
    flipped = data.draw(st.sets(st.integers(1, len(shape))))

    def move(tensor: Tensor) -> Tensor:
        return tensor.permute(order).flip(tuple(flipped)).contiguous()

    distance = _cuda.signed_distances(inside, None, inner)
    assert torch.equal(_cuda.signed_distances(move(inside), None, inner), move(distance))
    assert torch.equal(distance, _naive.signed_distances(inside, None, inner))
