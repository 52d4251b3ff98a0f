"""The Triton kernels on a real GPU."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from multilevel_loss.distance import _naive, signed_distance_map
from multilevel_loss.distance._op import signed_distances

if not torch.cuda.is_available():
    pytest.skip("no CUDA device: signed distances NOT tested on a GPU", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")

SHAPES = [
    (3, 1023), (1, 40_009), (2, 1023, 1021), (2, 1024, 1024), (1, 1025, 1031), (1, 2048, 2048), (1, 1, 2053),
    (1, 2053, 1), (2, 61, 67, 71), (1, 1, 127, 129), (1, 127, 1, 129), (1, 16, 256, 256),
]  # fmt: skip


def masks(shape: tuple[int, ...]) -> dict[str, Tensor]:
    axes = torch.meshgrid([torch.linspace(-1, 1, size) for size in shape[1:]], indexing="ij")
    radius = sum((axis - 0.3) ** 2 for axis in axes).sqrt().expand(shape)
    return {
        "noise": torch.rand(shape) < 0.5,
        "dust": torch.rand(shape) < 1e-3,
        "organ": radius < 0.2,
        "large": radius < 0.9,
    }


def oracle(inside: Tensor, spacing: Tensor | None, inner: bool) -> Tensor:
    maps = np.zeros(inside.shape)
    for n, mask in enumerate(inside):
        if mask.any() and not mask.all():
            sampling = None if spacing is None else spacing[n].tolist()
            surface = _naive.inner_boundary(mask) if inner else mask
            outside = distance_transform_edt(~surface.numpy(), sampling=sampling)
            within = outside if inner else distance_transform_edt(mask.numpy(), sampling=sampling)
            maps[n] = np.where(mask, 0 - within, outside)
    return torch.from_numpy(maps).float()


@pytest.fixture(autouse=True)
def _filled_memory() -> Iterator[None]:
    # Fills what torch.empty returns with NaN or the largest integer, so a kernel that reads what it never wrote fails.
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_scipy(shape: tuple[int, ...], inner: bool) -> None:
    spacing = torch.rand(shape[0], len(shape) - 1, dtype=torch.float64) * 3 + 0.1
    for name, inside in masks(shape).items():
        actual = signed_distances(inside.cuda(), None, inner).cpu()
        torch.testing.assert_close(actual, oracle(inside, None, inner), rtol=0, atol=0, msg=name)
        assert not torch.signbit(actual[actual == 0]).any()
        actual = signed_distances(inside.cuda(), spacing.cuda(), inner).cpu()
        torch.testing.assert_close(actual, oracle(inside, spacing, inner), rtol=2**-22, atol=0, msg=name)


def test_map_of_classes_equals_that_of_the_cpu() -> None:
    target = torch.randint(0, 4, (3, 5, 1, 1)).repeat(1, 1, 97, 101)
    target[1] = 2
    for boundary in ("inner", "midpoint", "kervadec"):
        expected = signed_distance_map(target, num_classes=4, boundary=boundary)
        actual = signed_distance_map(target.cuda(), num_classes=4, boundary=boundary)
        torch.testing.assert_close(actual.cpu(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("spaced", [False, True])
def test_no_host_synchronisation(spaced: bool) -> None:
    target = torch.randint(0, 3, (2, 24, 50, 60), device="cuda")
    spacing = torch.tensor([3.0, 0.7, 0.7], dtype=torch.float64, device="cuda") if spaced else None
    expected = signed_distance_map(target, num_classes=3, spacing=spacing)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        actual = signed_distance_map(target, num_classes=3, spacing=spacing)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(actual, expected)


def test_captured_graph_follows_the_mask() -> None:
    first, second = masks((2, 40, 50, 60))["organ"].cuda(), masks((2, 40, 50, 60))["noise"].cuda()
    inside = first.clone()
    expected = [signed_distances(mask, None, True) for mask in (first, second)]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        actual = signed_distances(inside, None, True)
    for mask, distance in zip((first, second, first), (*expected, expected[0]), strict=True):
        inside.copy_(mask)
        graph.replay()
        assert torch.equal(actual, distance)


def test_memory_stays_flat() -> None:
    inside = masks((2, 32, 64, 64))["organ"].cuda()

    def held() -> tuple[int, int]:
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

    for _ in range(3):
        signed_distances(inside, None, False)
    before = held()
    for _ in range(500):
        signed_distances(inside, None, False)
    assert held() == before


def test_voxels_beyond_int32() -> None:
    if torch.cuda.mem_get_info()[0] < 40 * 2**30:
        pytest.skip("2^31 voxels need 40 GiB of free GPU memory")
    inside = torch.zeros(9, 512, 700, 700, dtype=torch.bool, device="cuda")
    inside[8, 500, 600:640, 650:680] = True
    inside[8, 3, 2, 1] = True
    assert inside.numel() > 2**31
    distance = signed_distances(inside, None, False)
    assert torch.equal(distance[8:], signed_distances(inside[8:].clone(), None, False))
    assert not distance[:8].any()
