from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from multilevel_loss.distance import DistanceMapCache, DistanceMapDataset, cache, signed_distance_map

OPTIONS = [
    {},
    {"boundary": "midpoint"},
    {"boundary": "kervadec"},
    {"normalize": "max"},
    {"clip": 2.0},
    {"ignore_index": 1},
    {"num_classes": 2},
    {"spacing": 2.0},
    {"dtype": torch.float16},
]


def labels(*shape: int, classes: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


def entries(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.npy"))


@pytest.fixture
def computed(monkeypatch):
    """The shapes of the targets that were computed rather than read."""
    shapes = []

    def counting(target, **options):
        shapes.append(tuple(target.shape))
        return signed_distance_map(target, **options)

    monkeypatch.setattr(cache, "signed_distance_map", counting)
    return shapes


@pytest.mark.parametrize(
    ("target", "options"),
    [
        (labels(3, 7), {}),
        (labels(2, 5, 11, classes=3), {"num_classes": 3, "boundary": "midpoint", "clip": 4.5}),
        (labels(2, 3, 5, 7), {"normalize": "max", "spacing": (5.0, 1.0, 0.7)}),
        (labels(2, 5, 6, classes=3) - 1, {"ignore_index": -1}),
        (torch.nn.functional.one_hot(labels(2, 5, 6, classes=3), 3).movedim(-1, 1).double(), {"boundary": "kervadec"}),
        (labels(2, 7, 5).bool().transpose(1, 2), {}),
        (labels(0, 4, 5, classes=3), {"num_classes": 3}),
    ],
)
def test_the_map_is_that_of_the_function_computed_and_then_read(tmp_path, computed, target, options):
    maps = DistanceMapCache(tmp_path, **options)
    expected = signed_distance_map(target, **options)
    for _ in range(2):
        torch.testing.assert_close(maps(target), expected, rtol=0, atol=0)
    if len(target):
        assert computed == [(1, *target.shape[1:])] * len(target)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    seed=st.integers(0, 5),
    spacing=st.none() | st.floats(0.5, 5.0),
)
def test_whatever_is_stored_already_the_map_is_that_of_the_function(tmp_path, shape, seed, spacing):
    target = labels(*shape, seed=seed)
    expected = signed_distance_map(target, spacing=spacing)
    torch.testing.assert_close(DistanceMapCache(tmp_path)(target, spacing), expected, rtol=0, atol=0)


def test_samples_are_found_again_in_another_batch_with_their_own_spacing(tmp_path, computed):
    target = labels(3, 4, 5)
    spacing = torch.tensor([[1.0, 2.0], [3.0, 1.0], [1.0, 1.0]])
    maps = DistanceMapCache(tmp_path)
    expected = signed_distance_map(target, spacing=spacing)
    torch.testing.assert_close(maps(target, spacing), expected, rtol=0, atol=0)
    assert len(computed) == 3
    torch.testing.assert_close(maps(target[[2, 0]], spacing[[2, 0]]), expected[[2, 0]], rtol=0, atol=0)
    assert len(computed) == 3


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.bool])
def test_the_dtype_and_strides_of_labels_make_no_difference(tmp_path, computed, dtype):
    target = labels(1, 4, 6)
    maps = DistanceMapCache(tmp_path)
    maps(target)
    maps(target.to(dtype))
    maps(target.mT.contiguous().mT)
    assert len(computed) == len(entries(tmp_path)) == 1


@pytest.mark.parametrize("changed", OPTIONS[1:])
def test_another_option_is_another_entry(tmp_path, changed):
    target = labels(1, 4, 6)
    DistanceMapCache(tmp_path)(target)
    DistanceMapCache(tmp_path, **changed)(target)
    assert len(entries(tmp_path)) == 2


@pytest.mark.parametrize(
    "other",
    [
        torch.tensor([[0, 1, 1, 0]]),
        torch.tensor([[[0, 1], [0, 0]]]),
        torch.tensor([[0, 1, 0, 0, 0]]),
    ],
)
def test_other_labels_or_shape_are_another_entry(tmp_path, other):
    maps = DistanceMapCache(tmp_path)
    maps(torch.tensor([[0, 1, 0, 0]]))
    maps(other)
    assert len(entries(tmp_path)) == 2


def test_labels_and_one_hot_of_the_same_values_and_shape_are_two_entries(tmp_path):
    maps = DistanceMapCache(tmp_path)
    values = torch.tensor([[[0, 1, 0, 0]]])
    assert maps(values).shape == (1, 1, 1, 4)
    assert maps(values.float()).shape == (1, 1, 4)


def test_the_spacing_of_a_call_takes_precedence(tmp_path):
    target = torch.tensor([[0, 0, 1, 0]])
    maps = DistanceMapCache(tmp_path, spacing=2.0)
    assert maps(target).tolist() == [[[4, 2, 0, 2]]]
    assert maps(target, 3.0).tolist() == [[[6, 3, 0, 3]]]


def test_float16_rounds_within_its_documented_bound_and_saturates(tmp_path, computed):
    target = torch.zeros(1, 70_000, dtype=torch.uint8)
    target[0, 0] = 1
    maps = DistanceMapCache(tmp_path, dtype=torch.float16, spacing=0.7)
    exact = signed_distance_map(target, spacing=0.7)
    first, second = maps(target), maps(target)
    assert len(computed) == 1
    assert torch.equal(first, second)
    assert first.dtype == torch.float32
    assert ((first - exact).abs() <= exact / 2048).all()
    assert maps(target, 1.0).max() == 65_504
    assert torch.equal(maps(target, 1.0)[0, 0, :2049], torch.arange(2049.0))
    assert entries(tmp_path)[0].stat().st_size < 2 * 70_000 + 200


DAMAGE = {
    "emptied": lambda content: b"",
    "checksum alone": lambda content: bytes(4),
    "half written": lambda content: content[: len(content) // 2],
    "last byte missing": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "zeros": lambda content: bytes(len(content)),
    "header bit": lambda content: content[:60] + bytes([content[60] ^ 1]) + content[61:],
    "value bit": lambda content: content[:-9] + bytes([content[-9] ^ 16]) + content[-8:],
    "checksum bit": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_entry_is_computed_and_written_again(tmp_path, computed, damage):
    target = labels(1, 5, 7)
    maps = DistanceMapCache(tmp_path)
    expected = maps(target)
    (entry,) = entries(tmp_path)
    content = entry.read_bytes()
    entry.write_bytes(damage(content))
    assert torch.equal(maps(target), expected)
    assert entry.read_bytes() == content
    assert torch.equal(maps(target), expected)
    assert len(computed) == 2


def test_an_entry_is_a_npy_file(tmp_path):
    target = labels(1, 5, 7)
    expected = DistanceMapCache(tmp_path, dtype=torch.float16)(target)
    (entry,) = entries(tmp_path)
    stored = np.load(entry, mmap_mode="r")
    assert stored.dtype == np.float16
    assert np.array_equal(stored, expected[0])


def test_an_interrupted_write_leaves_nothing_and_what_another_left_does_no_harm(tmp_path, monkeypatch):
    target = labels(1, 5, 7)
    maps = DistanceMapCache(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(cache.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            maps(target)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".0123.tmp.npy").write_bytes(b"half")
    assert torch.equal(maps(target), signed_distance_map(target))


def test_an_entry_that_may_not_be_read_is_an_error(tmp_path, computed, monkeypatch):
    target = labels(1, 5, 7)
    maps = DistanceMapCache(tmp_path)
    maps(target)
    monkeypatch.setattr(cache.np, "fromfile", lambda *_: (_ for _ in ()).throw(PermissionError("not yours")))
    with pytest.raises(PermissionError, match="not yours"):
        maps(target)
    assert len(computed) == 1


@pytest.mark.parametrize(
    ("target", "spacing", "error", "message"),
    [
        (torch.tensor([[0, 2]]), None, ValueError, "expected `target` to hold labels 0…1, got values from 0 to 2"),
        (torch.tensor([0, 1]), None, ValueError, "expected label map `target` to have shape"),
        (torch.zeros(1, 2, 2, 2, 2, 2), 1.0, ValueError, "expected floating `target` to have shape"),
        ([[0, 1]], None, TypeError, "expected `target` to be an integer, bool or floating tensor, got list"),
        (torch.tensor([[0, 1]]), (1.0, 2.0), ValueError, "expected `spacing` to have 1 positive values"),
    ],
)
def test_what_the_function_refuses_is_refused_and_not_stored(tmp_path, target, spacing, error, message):
    with pytest.raises(error, match=message):
        DistanceMapCache(tmp_path)(target, spacing)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_dtype_is_refused(tmp_path):
    message = "expected `dtype` to be one of torch.float32, torch.float16, got torch.int8"
    with pytest.raises(ValueError, match=f"^{message}$"):
        DistanceMapCache(tmp_path, dtype=torch.int8)


def test_many_threads_write_and_read_and_remove_one_entry(tmp_path):
    target = labels(1, 40, 40)
    maps = DistanceMapCache(tmp_path)
    expected = maps(target)
    (entry,) = entries(tmp_path)

    def work(index: int) -> bool:
        if index % 3 == 0:
            entry.unlink(missing_ok=True)
        return torch.equal(maps(target), expected)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))
    assert [path for path in tmp_path.iterdir() if path != entry] == []


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_many_loader_workers_share_it(tmp_path, start):
    target = labels(8, 9, 10)
    repeated = [(torch.tensor(index), target[index % 8]) for index in range(32)]
    dataset = DistanceMapDataset(repeated, DistanceMapCache(tmp_path))
    loader = DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context=start)
    maps = torch.cat([batch[-1] for batch in loader])
    assert torch.equal(maps, signed_distance_map(target).repeat(4, 1, 1, 1))
    assert len(list(tmp_path.iterdir())) == 8
