"""The numba kernel, and the plain torch path, against brute force and SciPy."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from distance_oracles import by_scipy, masks
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from multilevel_loss import _numba, signed_distance_map
from multilevel_loss.distance import _cpu, _naive, _torch

# 1-D to 3-D; odd, prime and degenerate sides; more than one strip of 64 or block of 16.
SHAPES = [
    (3, 37), (1, 131), (2, 7, 11), (1, 11, 67), (1, 67, 11), (2, 5, 6, 7), (1, 17, 3, 9), (1, 2, 33, 9),
    (1, 1), (1, 1, 1, 5), (1, 1, 50), (1, 50, 1), (3, 1, 1), (1, 40, 1, 2), (1, 1, 40, 2),
]  # fmt: skip
LARGE = [
    (2, 1023), (1, 40_009), (1, 1023, 1021), (1, 1024, 1024), (1, 1025, 1031), (1, 2048, 512), (1, 1, 2053),
    (1, 2053, 1), (2, 61, 67, 71), (1, 1, 127, 129), (1, 127, 1, 129), (1, 16, 256, 64),
]  # fmt: skip


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def _threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    monkeypatch.setattr(_numba, "_WORTH_A_THREAD", 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _filled_memory():
    # Fills what torch.empty returns with NaN, so a kernel that leaves a voxel unwritten fails.
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def assert_exact(actual: Tensor, expected: Tensor, spacing: Tensor | None) -> None:
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, rtol=0 if spacing is None else 2**-23, atol=0)
    assert not torch.signbit(actual[actual == 0]).any()


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_brute_force(shape: tuple[int, ...], inner: bool) -> None:
    spacing = torch.rand(shape[0], len(shape) - 1, dtype=torch.float64) * 3 + 0.1
    for density in (0.03, 0.3, 0.5, 0.97, 1.0):
        inside = torch.rand(shape) < density
        for steps in (None, spacing):
            expected = _naive.signed_distances(inside, steps, inner)
            assert_exact(_cpu.signed_distances(inside, steps, inner), expected, steps)
            assert_exact(_torch.signed_distances(inside, steps, inner), expected, steps)


@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_equals_scipy(shape: tuple[int, ...], inner: bool) -> None:
    for inside in masks(shape).values():
        assert_exact(_cpu.signed_distances(inside, None, inner), by_scipy(inside, None, inner), None)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize("sides", [(90,), (40, 90), (21, 18, 90)], ids=str)
def test_samples_do_not_see_the_boxes_of_others(sides: tuple[int, ...], inner: bool) -> None:
    inside = torch.zeros(6, *sides, dtype=torch.bool)
    for n, (low, high) in enumerate([(2, 80), (30, 33), (50, 50), (0, 90), (70, 90), (1, 2)]):
        inside[n, ..., low:high] = torch.rand(*sides[:-1], high - low) < 0.6
    spacing = torch.rand(6, len(sides), dtype=torch.float64) + 0.5
    for steps in (None, spacing):
        assert_exact(_cpu.signed_distances(inside, steps, inner), by_scipy(inside, steps, inner), steps)


@pytest.mark.parametrize("shape", [(2, 127, 131), (2, 31, 40, 37)], ids=str)
def test_equals_scipy_in_mm(shape: tuple[int, ...]) -> None:
    spacing = torch.tensor([[5.0, 0.7, 1.3], [0.9, 3.1, 0.4]], dtype=torch.float64)[:, : len(shape) - 1]
    for inside in masks(shape).values():
        for inner in (True, False):
            assert_exact(_cpu.signed_distances(inside, spacing, inner), by_scipy(inside, spacing, inner), spacing)


@pytest.mark.parametrize("sides", [(4000, 2), (3000, 3000), (2049, 2049), (1, 70_000)], ids=str)
def test_squares_beyond_float32_are_exact(sides: tuple[int, int]) -> None:
    inside = torch.zeros(1, *sides, dtype=torch.bool)
    inside[0, 0, 0] = True
    rows, columns = (torch.arange(side, dtype=torch.float64) for side in sides)
    expected = (rows[:, None] ** 2 + columns**2).sqrt().float()[None]
    assert_exact(_cpu.signed_distances(inside, None, True), expected, None)


@pytest.mark.parametrize("kernel", [_naive, _cpu, _torch], ids=["naive", "cpu", "torch"])
def test_hand_worked_map(kernel) -> None:
    inside = torch.tensor([[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0]], dtype=torch.bool)[None]
    root = 2**0.5
    inner = [[root, 1, 1, 1, root], [1, 0, 0, 0, 1], [1, 0, -1, 0, 1], [1, 0, -1, 0, 1]]
    torch.testing.assert_close(kernel.signed_distances(inside, None, True)[0], torch.tensor(inner), rtol=0, atol=0)
    either = [[root, 1, 1, 1, root], [1, -1, -1, -1, 1], [1, -1, -2, -1, 1], [1, -1, -2, -1, 1]]
    torch.testing.assert_close(kernel.signed_distances(inside, None, False)[0], torch.tensor(either), rtol=0, atol=0)
    spacing = torch.tensor([[3, 2]], dtype=torch.float64)
    wide = [[13**0.5, 3, 3, 3, 13**0.5], [2, 0, 0, 0, 2], [2, 0, -2, 0, 2], [2, 0, -2, 0, 2]]
    torch.testing.assert_close(kernel.signed_distances(inside, spacing, True)[0], torch.tensor(wide), rtol=0, atol=0)


@pytest.mark.parametrize("kernel", [_naive, _cpu, _torch], ids=["naive", "cpu", "torch"])
@pytest.mark.parametrize("inner", [True, False])
def test_empty_full_single_voxel_and_hole_in_one_batch(kernel, inner: bool) -> None:
    inside = torch.zeros(4, 5, 6, 7, dtype=torch.bool)
    inside[1] = inside[3] = True
    inside[2, 2, 4, 3] = True
    inside[3, 0, 0, 0] = False
    distances = kernel.signed_distances(inside, None, inner)
    assert not distances[:2].any()
    assert distances[2, 2, 4, 3] == (0 if inner else -1)
    assert distances[2, 0, 0, 0] == pytest.approx(29**0.5)
    assert distances[3, 4, 5, 6] == pytest.approx(-(66**0.5) if inner else -(77**0.5))


@pytest.mark.parametrize("kernel", [_naive, _cpu, _torch], ids=["naive", "cpu", "torch"])
@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (2, 3, 0), (2, 0, 3, 4), (0, 0, 0)], ids=str)
def test_nothing_gives_nothing(kernel, shape: tuple[int, ...]) -> None:
    spacing = torch.ones(shape[0], len(shape) - 1, dtype=torch.float64)
    for steps in (None, spacing):
        distances = kernel.signed_distances(torch.zeros(shape, dtype=torch.bool), steps, True)
        assert distances.shape == shape
        assert distances.dtype == torch.float32


@st.composite
def batches(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(1, 40), min_size=2, max_size=3).map(tuple) | st.tuples(*[st.integers(1, 9)] * 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return torch.rand(shape, generator=generator) < draw(st.sampled_from([0.01, 0.1, 0.5, 0.9, 0.99]))


@given(batches(), st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_mask_equals_brute_force(inside: Tensor, inner: bool, spaced: bool) -> None:
    spacing = torch.linspace(0.3, 4, inside.ndim - 1, dtype=torch.float64).repeat(len(inside), 1) if spaced else None
    expected = _naive.signed_distances(inside, spacing, inner)
    assert_exact(_cpu.signed_distances(inside, spacing, inner), expected, spacing)


def test_many_threads_at_once() -> None:
    inside = [torch.rand(2, 40, 41) < 0.1 for _ in range(8)]
    expected = [_naive.signed_distances(mask, None, True) for mask in inside]
    start = threading.Barrier(8)

    def one(mask: Tensor) -> list[Tensor]:
        start.wait()
        return [_cpu.signed_distances(mask, None, True) for _ in range(20)]

    with ThreadPoolExecutor(8) as pool:
        for maps, truth in zip(pool.map(one, inside), expected, strict=True):
            assert all(torch.equal(distances, truth) for distances in maps)


class Maps(Dataset[Tensor]):
    """Computes maps in the workers of a loader, in threads although there is little to do."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        torch.set_num_threads(2)
        _numba._WORTH_A_THREAD = 1
        inside = torch.rand(1, 30, 31, generator=torch.Generator().manual_seed(index)) < 0.1
        return signed_distance_map(inside)[0]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_loader(start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_numba, "_WORTH_A_THREAD", _numba._WORTH_A_THREAD)  # restored, for `Maps` sets it
    threads = torch.get_num_threads()
    expected = [Maps()[index] for index in range(4)]  # and so the parent has threads when it forks
    torch.set_num_threads(threads)
    loader = DataLoader(Maps(), batch_size=2, num_workers=1, multiprocessing_context=start)
    assert torch.equal(torch.cat(list(loader)), torch.stack(expected))
