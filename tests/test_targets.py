import pytest
import torch

from multilevel_loss._targets import above, memberships, prepare, regions

INTEGERS = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32]


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("channel_axis", [False, True])
def test_binary_label_maps_of_every_dtype_mean_the_same(dtype: torch.dtype, channel_axis: bool) -> None:
    labels = torch.tensor([[[0, 1, 1], [0, 0, 1]]])
    target = labels.unsqueeze(1) if channel_axis else labels
    prepared = prepare(torch.zeros(1, 1, 2, 3), target.to(dtype), mode=None)
    assert prepared.mode == "binary"
    assert prepared.target.equal(labels.unsqueeze(1).float())


@pytest.mark.parametrize("dtype", INTEGERS[1:])
def test_label_map_is_one_hot_of_its_classes(dtype: torch.dtype) -> None:
    labels = torch.tensor([[2, 0, 1, 2]])
    expected = torch.tensor([[[0.0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1]]])
    for target in (labels.to(dtype), labels.unsqueeze(1).to(dtype), expected, expected.to(dtype)):
        prepared = prepare(torch.zeros(1, 3, 4), target, mode=None)
        assert prepared.mode == "multiclass"
        assert prepared.target.equal(expected)


def test_one_channel_float_target_is_soft_and_integer_target_is_labels() -> None:
    soft = torch.tensor([[[0.25, 1.0]]])
    assert prepare(torch.zeros(1, 1, 2), soft, mode=None).target.equal(soft)
    assert prepare(torch.zeros(1, 1, 2), soft.round().long(), mode=None).target.equal(torch.tensor([[[0.0, 1.0]]]))


def test_multilabel_takes_memberships_of_any_dtype() -> None:
    target = torch.tensor([[[0, 1], [1, 1]]])
    for dtype in (torch.bool, torch.int64, torch.float32):
        assert prepare(torch.zeros(1, 2, 2), target.to(dtype), mode="multilabel").target.equal(target.float())


@pytest.mark.parametrize("ignored", [255, -1, 1])
def test_ignored_voxels_belong_to_no_class_and_do_not_count(ignored: int) -> None:
    labels = torch.tensor([[0, 2, 0]])
    labels[0, 2] = ignored
    prepared = prepare(torch.full((1, 3, 3), torch.nan), labels, mode=None, ignore_index=ignored)
    assert prepared.target[..., 2].count_nonzero() == 0
    assert prepared.mask is not None
    assert prepared.mask.tolist() == [[[True, True, False]]]
    assert prepared.logits[..., 2].equal(torch.zeros(1, 3))
    assert prepared.probability()[..., 2].equal(torch.zeros(1, 3))


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 1, 3, 4)])
def test_mask_and_ignore_index_join(shape: tuple[int, ...]) -> None:
    labels = torch.ones(2, 3, 4, dtype=torch.uint8)
    labels[0, 0, 0] = 255
    mask = torch.ones(shape, dtype=torch.int32)
    mask[1] = 0
    prepared = prepare(torch.zeros(2, 1, 3, 4), labels, mode=None, ignore_index=255, mask=mask)
    assert prepared.mask is not None
    assert prepared.mask.flatten(1).sum(1).tolist() == [11, 0]
    assert prepared.target.flatten(1).sum(1).tolist() == [11, 0]


@pytest.mark.parametrize("rubbish", [255, -7])
def test_a_masked_target_may_hold_anything(rubbish: int) -> None:
    mask = torch.tensor([[1, 1, 0]])
    labels = torch.tensor([[2, 0, rubbish]])
    prepared = prepare(torch.zeros(1, 3, 3), labels, mode=None, mask=mask)
    assert prepared.target.tolist() == [[[0, 1, 0], [0, 0, 0], [1, 0, 0]]]
    assert regions(prepared.truth, 3)[:, 1:].tolist() == [[[False, False, False], [True, False, False]]]
    soft = torch.tensor([[[0.25, 1.0, float(rubbish)]]])
    assert prepare(torch.zeros(1, 1, 3), soft, mode=None, mask=mask).target.tolist() == [[[0.25, 1, 0]]]
    nan = torch.tensor([[[0.25, 1.0, torch.nan]]])
    assert prepare(torch.zeros(1, 1, 3), nan, mode=None, mask=mask).target.tolist() == [[[0.25, 1, 0]]]


LARGE = (2, 211, 313)  # for the kernel, more than one item of it and no multiple of one


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("channels", [1, 3, 20])
@pytest.mark.parametrize("masked", [False, True])
def test_large_label_maps_mean_what_small_ones_do(dtype: torch.dtype, channels: int, masked: bool) -> None:
    classes = 2 if dtype == torch.bool else max(channels, 2)
    labels, mask = torch.randint(classes, LARGE), torch.rand(LARGE) > 0.3 if masked else None
    if masked and dtype != torch.bool:
        labels[~mask] = 101  # a class of few of these
    expected = labels if mask is None else torch.where(mask, labels, -1)
    for laid in (labels.to(dtype), labels.to(dtype).mT.contiguous().mT):
        truth = prepare(torch.zeros(LARGE[0], channels, *LARGE[1:]), laid, mode=None, mask=mask).truth
        inside = regions(truth, channels)
        assert inside.is_contiguous()
        for channel in range(min(channels, 3)):
            members = expected == (1 if channels == 1 else channel)
            assert inside[:, channel].equal(members)
            assert memberships(truth, channels, torch.float32)[:, channel].equal(members.float())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("wrong", [-(2**63), -(2**32), -256, -1, 3, 256, 257, 2**32, 2**32 + 1, 2**63 - 1])
def test_one_wrong_label_among_many_is_found_unless_it_is_masked(channels: int, wrong: int) -> None:
    logits = torch.zeros(LARGE[0], channels, *LARGE[1:])
    for dtype in (torch.int8, torch.int16, torch.int32, torch.int64):
        if not torch.iinfo(dtype).min <= wrong <= torch.iinfo(dtype).max:
            continue
        for place in ((0, 0, 0), (1, 17, 200), (1, 210, 312)):
            labels, mask = torch.ones(LARGE, dtype=dtype), torch.rand(LARGE) > 0.3
            labels[place], mask[place] = wrong, True
            message = f"to hold labels 0…{max(channels, 2) - 1}, got values from {min(wrong, 1)} to {max(wrong, 1)}"
            with pytest.raises(ValueError, match=message):
                prepare(logits, labels, mode=None)
            with pytest.raises(ValueError, match=f"{min(wrong, 0)} to {max(wrong, 1)}"):
                prepare(logits, labels, mode=None, mask=mask)
            mask[place] = False
            prepare(logits, labels, mode=None, mask=mask)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_computation_is_float32_or_wider(dtype: torch.dtype, expected: torch.dtype) -> None:
    prepared = prepare(torch.zeros(1, 1, 4, dtype=dtype), torch.zeros(1, 4, dtype=torch.long), mode=None)
    assert prepared.logits.dtype == prepared.target.dtype == expected


@pytest.mark.parametrize(
    ("input", "target", "options", "error", "message"),
    [
        (torch.zeros(1, 1, 2), torch.full((1, 2), 255), {}, ValueError,
         "expected `target` to hold labels 0…1, got values from 255 to 255; for a 0/255 mask pass `target > 127`, "
         "for ignored voxels `ignore_index=255`"),
        (torch.zeros(1, 3, 2), torch.tensor([[0, 3]]), {}, ValueError,
         "expected `target` to hold labels 0…2, got values from 0 to 3"),
        (torch.zeros(1, 3, 2), torch.tensor([[0, -1]]), {}, ValueError,
         "expected `target` to hold labels 0…2, got values from -1 to 0"),
        (torch.zeros(1, 1, 2), torch.full((1, 1, 2), 255.0), {}, ValueError,
         "expected `target` to hold class memberships in [0, 1], got values from 255 to 255; for a 0/255 mask pass "
         "`target > 127`"),
        (torch.zeros(1, 1, 2), torch.full((1, 1, 2), torch.nan), {}, ValueError,
         "expected `target` to hold class memberships in [0, 1], got values from nan to nan"),
        (torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2), {}, ValueError,
         "expected `target` for binary `input` of shape (1, 1, 2, 2) to be a label map of integers, shape (1, 2, 2) or "
         "(1, 1, 2, 2), or class memberships of floats, shape (1, 1, 2, 2), got shape (1, 2, 2), torch.float32: pass "
         "`target.long()` if it holds labels, or `target.unsqueeze(1)` if it holds memberships"),
        (torch.zeros(1, 2, 2), torch.zeros(1, 2, dtype=torch.long), {"mode": "multilabel"}, ValueError,
         "expected `target` for multilabel `input` of shape (1, 2, 2) to be class memberships of floats, shape "
         "(1, 2, 2), got shape (1, 2), torch.int64"),
        (torch.zeros(2, 1, 4), torch.zeros(1, 4, dtype=torch.long), {}, ValueError,
         "expected `target` for binary `input` of shape (2, 1, 4) to be a label map of integers, shape (2, 4) or "
         "(2, 1, 4), or class memberships of floats, shape (2, 1, 4), got shape (1, 4), torch.int64"),
        (torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), {"ignore_index": 255}, ValueError,
         "expected `target` to be a label map when `ignore_index` is given, got class memberships of shape (1, 1, 2): "
         "use `mask`"),
        (torch.zeros(1, 1, 2), torch.zeros(1, 2, dtype=torch.long), {"mask": torch.ones(2, 2)}, ValueError,
         "expected `mask` to have one value a voxel, shape (1, 2) or (1, 1, 2), got (2, 2)"),
        (torch.zeros(1, 2, 2), torch.zeros(1, 2, dtype=torch.long), {"mode": "binary"}, ValueError,
         "expected `input` to have 1 channel when `mode` is 'binary', got 2"),
        (torch.zeros(1, 1, 2), torch.zeros(1, 2, dtype=torch.long), {"mode": "multiclass"}, ValueError,
         "expected `input` to have at least 2 channels when `mode` is 'multiclass', got 1"),
        (torch.zeros(1, 1, 2), torch.zeros(1, 2, dtype=torch.long), {"mode": "softmax"}, ValueError,
         "expected `mode` to be one of 'binary', 'multiclass', 'multilabel', got 'softmax'"),
        (torch.zeros(4, 4), torch.zeros(4, 4), {}, ValueError,
         "expected `input` to be logits of shape (B, C, *spatial) with 1 to 3 spatial dimensions, got shape (4, 4)"),
        (torch.zeros(1, 1, 2, dtype=torch.long), torch.zeros(1, 2), {}, TypeError,
         "expected `input` to be floating-point logits, got torch.int64"),
        ([0.0], torch.zeros(1, 2), {}, TypeError,
         "expected `input` to be a tensor of logits (B, C, *spatial), got list"),
        (torch.zeros(1, 1, 2), [0, 1], {}, TypeError, "expected `target` to be a tensor, got list"),
        (torch.zeros(1, 1, 2), torch.zeros(1, 2, dtype=torch.long, device="meta"), {}, ValueError,
         "expected `target` on the device of `input`, cpu, got meta"),
    ],
)  # fmt: skip
def test_bad_input_says_what_is_wrong(
    input: object, target: object, options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        prepare(input, target, **({"mode": None} | options))  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_above_is_what_torch_says() -> None:
    values = torch.randn(2, 3, 7)
    values[0, 0, :4] = torch.tensor([0.0, -0.0, torch.nan, torch.inf])
    for x in (values, values.double(), values.half(), values.bfloat16(), values.transpose(0, 2), values[:0]):
        assert above(0, x).equal(x > 0)
        assert above(0, x).is_contiguous()
