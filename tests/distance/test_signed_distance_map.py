"""The public functions: conventions, targets, options, errors, laws; the operator behind them."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from multilevel_loss import MLLoss
from multilevel_loss.distance import _naive, distance_map, signed_distance_map

ROW = torch.tensor([[0, 0, 1, 1, 1, 0]])
DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32]


def close(actual: Tensor, expected: object) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=torch.float32), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [2, 1, 0, -1, 0, 1]),
        ({"boundary": "midpoint"}, [1.5, 0.5, -0.5, -1.5, -0.5, 0.5]),
        ({"boundary": "kervadec"}, [2, 1, 0, -1, 0, 1]),
        ({"spacing": 2.5}, [5, 2.5, 0, -2.5, 0, 2.5]),
        ({"spacing": 2.5, "boundary": "midpoint"}, [3.75, 1.25, -1.25, -3.75, -1.25, 1.25]),
        ({"spacing": 2.5, "boundary": "kervadec"}, [5, 2.5, -1.5, -4, -1.5, 2.5]),  # the 1 is one voxel even in mm
        ({"clip": 1.0}, [1, 1, 0, -1, 0, 1]),
        ({"normalize": "max"}, [1, 0.5, 0, -1, 0, 0.5]),
        ({"normalize": "max", "boundary": "midpoint"}, [1, 1 / 3, -1 / 3, -1, -1 / 3, 1 / 3]),
        ({"normalize": "max", "clip": 1.5, "spacing": 1.0}, [1, 2 / 3, 0, -1, 0, 2 / 3]),
    ],
    ids=str,
)
def test_options_on_a_row(options: dict, expected: list[float]) -> None:
    close(signed_distance_map(ROW, **options), [[expected]])


@pytest.mark.parametrize(
    ("side", "expected"),
    [("both", [2, 1, 1, 2, 1, 1]), ("inside", [0, 0, 1, 2, 1, 0]), ("outside", [2, 1, 0, 0, 0, 1])],
)
def test_sides_of_a_distance_map(side: str, expected: list[float]) -> None:
    close(distance_map(ROW, side=side), [[expected]])
    close(distance_map(ROW, side=side, spacing=3.0), [[[3 * value for value in expected]]])


def test_midpoint_moves_by_half_of_the_smallest_spacing() -> None:
    target = torch.zeros(2, 3, 3, dtype=torch.uint8)
    target[:, 1, 1] = 1
    distances = signed_distance_map(target, spacing=torch.tensor([[4.0, 1.0], [2.0, 6.0]]), boundary="midpoint")
    close(distances[0, 0, 1], [0.5, -0.5, 0.5])
    close(distances[1, 0, :, 1], [1, -1, 1])
    close(distances[1, 0, 1], [5, -1, 5])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_one_hot_give_the_same_map(dtype: torch.dtype) -> None:
    labels = torch.randint(0, 2, (2, 6, 7))
    expected = signed_distance_map(labels)
    assert torch.equal(signed_distance_map(labels.to(dtype)), expected)
    both = signed_distance_map(labels.to(dtype), num_classes=2)
    assert torch.equal(both[:, 1:], expected)
    assert torch.equal(both[:, :1], signed_distance_map(1 - labels))
    for floating in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        one_hot = torch.stack([1 - labels, labels], 1).to(floating)
        assert torch.equal(signed_distance_map(one_hot), both)
        assert torch.equal(signed_distance_map(one_hot, num_classes=2), both)


@pytest.mark.parametrize("num_classes", [3, 254, 255, 256, 300])
def test_each_class_is_the_binary_map_of_it(num_classes: int) -> None:
    labels = torch.randint(0, num_classes, (2, 7, 9))
    distances = signed_distance_map(labels, num_classes=num_classes)
    assert distances.shape == (2, num_classes, 7, 9)
    assert distances.is_contiguous()
    for label in range(num_classes):
        assert torch.equal(distances[:, label], signed_distance_map(labels == label)[:, 0])


def test_ignored_voxels_belong_to_no_class() -> None:
    labels = torch.tensor([[0, 0, 1, 1, 255, 2, 255]])
    distances = signed_distance_map(labels, num_classes=3, ignore_index=255)
    for label in range(3):
        assert torch.equal(distances[:, label], signed_distance_map(labels == label)[:, 0])
    assert torch.equal(
        signed_distance_map(torch.tensor([[0, 1, 1, -1, 1]]), ignore_index=-1),
        signed_distance_map(torch.tensor([[0, 1, 1, 0, 1]])),
    )
    assert torch.equal(  # the ignored label may be a class
        signed_distance_map(torch.tensor([[0, 1, 2, 1]]), num_classes=3, ignore_index=1)[:, 1], torch.zeros(1, 4)
    )


def test_soft_memberships_count_above_a_half() -> None:
    soft = torch.tensor([[[0.2, 0.5, 0.51, 0.9, 0.7, 0.4]]])
    assert torch.equal(signed_distance_map(soft), signed_distance_map(ROW))


def test_absent_and_full_classes_are_zero() -> None:
    labels = torch.zeros(1, 4, 5, dtype=torch.int64)
    for boundary in ("inner", "midpoint", "kervadec"):
        for normalize in (None, "max"):
            maps = signed_distance_map(labels, num_classes=3, boundary=boundary, normalize=normalize, spacing=(2, 3))
            assert torch.equal(maps, torch.zeros(1, 3, 4, 5))


def test_layout_does_not_matter() -> None:
    labels = torch.randint(0, 3, (2, 4, 6, 10))
    expected = signed_distance_map(labels, num_classes=3)
    assert torch.equal(signed_distance_map(labels.mT.contiguous().mT, num_classes=3), expected)
    wide = torch.zeros(2, 4, 6, 20, dtype=torch.int64)
    wide[..., ::2] = labels
    assert torch.equal(signed_distance_map(wide[..., ::2], num_classes=3), expected)
    one_hot = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    channels_last = one_hot.contiguous(memory_format=torch.channels_last_3d)
    for target in (one_hot, channels_last):
        distances = signed_distance_map(target)
        assert torch.equal(distances, expected)
        assert distances.is_contiguous()


@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (0, 4, 5), (2, 3, 0), (2, 3, 0, 4)], ids=str)
def test_nothing_gives_nothing(shape: tuple[int, ...]) -> None:
    target = torch.zeros(shape, dtype=torch.uint8)
    for options in ({}, {"normalize": "max", "clip": 2.0, "spacing": 2.0, "boundary": "midpoint"}):
        assert signed_distance_map(target, **options).shape == (shape[0], 1, *shape[1:])
        assert signed_distance_map(target, num_classes=3, **options).shape == (shape[0], 3, *shape[1:])


def test_maps_are_constants() -> None:
    soft = torch.rand(1, 2, 5, 6, requires_grad=True)
    spacing = torch.tensor([1.0, 2.0], requires_grad=True)
    assert not signed_distance_map(soft, spacing=spacing, boundary="midpoint").requires_grad
    assert not distance_map(soft, spacing=spacing).requires_grad


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_batch_is_its_samples(rank: int) -> None:
    target = torch.rand(3, 2, *[5, 7, 4][:rank]).round()
    spacing = torch.rand(3, rank, dtype=torch.float64) + 0.5
    for options in ({}, {"boundary": "kervadec"}, {"normalize": "max"}):
        together = signed_distance_map(target, spacing=spacing, **options)
        for n in range(3):
            alone = signed_distance_map(target[n : n + 1], spacing=spacing[n], **options)
            assert torch.equal(together[n : n + 1], alone)


masks = st.tuples(st.integers(0, 2**31), st.sampled_from([0.05, 0.5, 0.95]), st.sampled_from(["inner", "midpoint"]))


@given(masks, st.permutations([1, 2, 3]), st.lists(st.integers(1, 3), unique=True))
@settings(max_examples=60, deadline=None)
def test_flips_and_permutations_commute(mask: tuple, order: list[int], flipped: list[int]) -> None:
    seed, density, boundary = mask
    target = torch.rand(2, 5, 7, 6, generator=torch.Generator().manual_seed(seed)) < density
    spacing = torch.tensor([2.0, 0.5, 1.25])
    expected = signed_distance_map(target, spacing=spacing, boundary=boundary)
    moved = target.permute(0, *order).flip(flipped)
    actual = signed_distance_map(moved, spacing=spacing[[axis - 1 for axis in order]], boundary=boundary)
    expected = expected.permute(0, 1, *(axis + 1 for axis in order)).flip([axis + 1 for axis in flipped])
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)


@given(masks, st.floats(0.01, 100))
@settings(max_examples=60, deadline=None)
def test_scaling_the_spacing_scales_the_map(mask: tuple, scale: float) -> None:
    seed, density, boundary = mask
    target = torch.rand(2, 9, 8, generator=torch.Generator().manual_seed(seed)) < density
    spacing = torch.tensor([1.5, 0.75], dtype=torch.float64)
    expected = scale * signed_distance_map(target, spacing=spacing, boundary=boundary)
    torch.testing.assert_close(
        signed_distance_map(target, spacing=scale * spacing, boundary=boundary), expected, rtol=1e-6, atol=0
    )


@given(masks)
@settings(max_examples=60, deadline=None)
def test_bounds(mask: tuple) -> None:
    seed, density, boundary = mask
    target = torch.rand(1, 9, 11, generator=torch.Generator().manual_seed(seed)) < density
    distances = signed_distance_map(target, boundary=boundary)[0, 0]
    assert (distances[target[0]] <= 0).all()
    assert (distances[~target[0]] >= 0).all()
    steps = torch.cat([distances.diff(dim=0).flatten(), distances.diff(dim=1).flatten()])
    assert steps.abs().max() <= 2 + 1e-6  # a step of one voxel, and across the border both sides' own
    normalized = signed_distance_map(target, boundary=boundary, normalize="max")
    assert normalized.abs().max() <= 1


ERRORS = [
    (lambda: signed_distance_map([[0, 1]]), TypeError,
     "expected `target` to be an integer, bool or floating tensor, got list"),
    (lambda: signed_distance_map(torch.zeros(2, 3, dtype=torch.complex64)), TypeError,
     "expected `target` to be an integer, bool or floating tensor, got torch.complex64"),
    (lambda: signed_distance_map(torch.zeros(3, dtype=torch.int64)), ValueError,
     "expected label map `target` to have shape (B, *spatial) with 1 to 3 spatial dimensions, got shape (3,); "
     "a one-hot target has a floating dtype"),
    (lambda: signed_distance_map(torch.zeros(3, 4)), ValueError,
     "expected floating `target` to have shape (B, C, *spatial) with 1 to 3 spatial dimensions, got shape (3, 4)"),
    (lambda: signed_distance_map(torch.zeros(1, 3, 4), num_classes=2), ValueError,
     "expected `num_classes` to be C of `target` (B, C, *spatial), (1, 3, 4), got 2"),
    (lambda: signed_distance_map(torch.zeros(1, 3, 4), ignore_index=2), ValueError,
     "expected `ignore_index` to be None when `target` is floating, got 2"),
    (lambda: signed_distance_map(ROW, num_classes=1), ValueError,
     "expected `num_classes` to be at least 2, or None for labels 0 and 1, got 1"),
    (lambda: signed_distance_map(2 * ROW), ValueError,
     "expected `target` to hold labels 0…1, got values from 0 to 2"),
    (lambda: signed_distance_map(ROW - 1, num_classes=3), ValueError,
     "expected `target` to hold labels 0…2, got values from -1 to 0"),
    (lambda: signed_distance_map(255 * ROW), ValueError,
     "expected `target` to hold labels 0…1, got values from 0 to 255; for a 0/255 mask pass `target > 127`, "
     "for ignored voxels `ignore_index=255`"),
    (lambda: signed_distance_map(ROW, boundary="outer"), ValueError,
     "expected `boundary` to be one of 'inner', 'midpoint', 'kervadec', got 'outer'"),
    (lambda: signed_distance_map(ROW, normalize=True), ValueError,
     "expected `normalize` to be one of None, 'max', got True"),
    (lambda: signed_distance_map(ROW, clip=0.0), ValueError, "expected `clip` to be greater than 0, got 0.0"),
    (lambda: signed_distance_map(ROW, spacing=(1, 2)), ValueError,
     "expected `spacing` to have 1 positive values (W in mm), one positive value, or shape (B, 1) = (1, 1), "
     "got (1, 2)"),
    (lambda: distance_map(ROW, side="left"), ValueError,
     "expected `side` to be one of 'both', 'inside', 'outside', got 'left'"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_errors(call, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == message


@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize("spaced", [True, False])
def test_operator_passes_opcheck(inner: bool, spaced: bool) -> None:
    inside = torch.rand(2, 5, 6) < 0.5
    spacing = torch.rand(2, 2, dtype=torch.float64) + 0.5 if spaced else None
    torch.library.opcheck(torch.ops.multilevel_loss.signed_distances.default, (inside, spacing, inner))


def test_traces_whole_and_equals_eager() -> None:
    labels = torch.randint(0, 3, (2, 5, 6))
    labels[0, 0] = 255

    def maps(target: Tensor) -> Tensor:
        options = {"boundary": "midpoint", "normalize": "max", "clip": 3.0, "ignore_index": 255}
        return signed_distance_map(target, num_classes=3, spacing=(1.0, 2.0), **options)

    compiled = torch.compile(maps, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(labels), maps(labels))


def test_traces_whole_inside_a_loss() -> None:
    loss = MLLoss()
    logits = torch.randn(2, 3, 9, 10, requires_grad=True)
    labels = torch.randint(0, 3, (2, 9, 10))
    points = torch.rand(2, 16, 2)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    value = compiled(logits, labels, point_coords=points)
    torch.testing.assert_close(value, loss(logits, labels, point_coords=points))
    value.backward()
    assert logits.grad.isfinite().all()


def test_brute_force_by_hand() -> None:
    inside = torch.tensor([[[1, 0], [0, 0]], [[1, 1], [1, 1]]], dtype=torch.bool)
    distances = _naive.signed_distances(inside, torch.tensor([[3.0, 4.0], [1.0, 1.0]], dtype=torch.float64), False)
    close(distances, [[[-3, 4], [3, 5]], [[0, 0], [0, 0]]])


def test_import_is_light() -> None:
    code = "import sys, multilevel_loss; sys.exit(bool({'numba', 'triton', 'cv2'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
