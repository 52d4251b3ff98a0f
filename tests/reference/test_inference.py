from __future__ import annotations

import re
import time
import warnings

import numpy as np
import pytest
import torch
from bright import Stub, bright, bright_crop
from numpy.typing import NDArray
from torch import Tensor, nn

from reference.inference import Segmentation, relative_dsc, segment
from reference.models import CoarseToFine, ModelName, bounding_box, build_model, crop

pytestmark = pytest.mark.usefixtures("one_thread")


def logit(probability: float) -> float:
    return float(torch.tensor(probability, dtype=torch.float64).logit())


@pytest.fixture
def block() -> NDArray[np.float32]:
    image = np.zeros((7, 64, 70), dtype=np.float32)
    image[2:5, 30:34, 28:34] = 1
    return image


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_a_certain_organ_converges_at_once(block: NDArray[np.float32], axes: tuple[int, ...]) -> None:
    found = segment({axis: Stub(bright, bright_crop) for axis in axes}, block)
    np.testing.assert_array_equal(found.mask, block == 1)
    assert found.mask.dtype == np.bool_
    assert found.probability.dtype == np.float32
    assert found.probability.shape == block.shape
    assert found.rdsc == [1.0]
    assert found.iterations == 1
    assert found.seconds > 0


def test_crops_are_the_boxes_with_margin(block: NDArray[np.float32]) -> None:
    model = Stub(bright, bright_crop)
    segment({0: model}, block, batch_size=8)
    # Slices 1 to 5 show the organ in their unit, 0 and 6 do not; 4×6 pixels and 20 a side.
    assert model.crops == [(5, 6, 44, 46)]


def test_units_are_averaged_over_those_that_show_a_slice() -> None:
    a, b, c = 0.9, 0.6, 0.7
    logits = torch.tensor([logit(a), logit(b), logit(c)]).view(1, 3, 1, 1)
    model = Stub(lambda image: image * 0 + logits, lambda seen: seen[:, 3:] * 0 + logits)
    found = segment({0: model}, np.zeros((4, 9, 9), dtype=np.float32))
    expected = [(a + b) / 2, (a + b + c) / 3, (a + b + c) / 3, (b + c) / 2]
    np.testing.assert_allclose(
        found.probability, np.broadcast_to(np.reshape(expected, (4, 1, 1)), (4, 9, 9)), rtol=1e-5
    )


def test_a_unit_without_organ_is_left_out() -> None:
    """Slice 2 is seen by the units 1, 2 and 3, of which only 1 shows the organ, in slice 0."""
    image = np.zeros((5, 30, 30), dtype=np.float32)
    image[0] = 1
    model = Stub(bright, lambda seen: seen[:, 3:] * 0 + torch.tensor([1.0, 1.0, logit(0.7)]).view(1, 3, 1, 1))
    found = segment({0: model}, image, tmax=1)
    assert model.crops == [(1, 6, 30, 30)] * 2
    np.testing.assert_allclose(found.probability[2], 0.7, rtol=1e-5)
    assert (found.probability[3:] == 0).all()


@pytest.mark.parametrize(
    ("probabilities", "by_mean", "by_majority"), [((0.6, 0.6, 0.1), False, True), ((0.9, 0.45, 0.4), True, False)]
)
def test_votes(probabilities: tuple[float, ...], by_mean: bool, by_majority: bool) -> None:
    def constant(value: float) -> Stub:
        return Stub(lambda image: image * 0 + logit(value), lambda seen: seen[:, 3:] * 0 + logit(value))

    models = {axis: constant(value) for axis, value in enumerate(probabilities)}
    image = np.zeros((9, 10, 11), dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert segment(models, image).mask.all() == by_mean
        found = segment(models, image, vote="majority")
    assert found.mask.all() == by_majority
    np.testing.assert_allclose(found.probability, np.mean(probabilities), rtol=1e-5)


def test_small_components_leave_the_mask_alone_and_only_from_round_1() -> None:
    image = np.zeros((4, 40, 40), dtype=np.float32)
    image[1:3, 4:8, 4:9] = 1  # 40 voxels
    image[1:3, 30:32, 30:35] = 1  # 20: half of the largest stays
    image[0, 20:23, 20:23] = 1  # 9
    image[3, 20, 30:40] = 1  # 10
    image[2, 8, 9] = 1  # touches the first by an edge only
    rounds: list[NDArray[np.bool_]] = []
    found = segment({0: Stub(bright, bright_crop)}, image, observe=lambda number, mask: rounds.append(mask.copy()))
    np.testing.assert_array_equal(rounds[0], image == 1)
    assert found.mask.sum() == rounds[1].sum() == 60
    assert found.mask[1:3, 30:32, 30:35].all()
    np.testing.assert_array_equal(found.probability >= 0.5, image == 1)
    assert found.rdsc[0] == pytest.approx(2 * 60 / (60 + 80))
    assert found.rdsc[1:] == [1.0]
    assert found.iterations == 2


def test_rounds_end_at_tmax() -> None:
    """A mask that shrinks by a third each round never settles."""
    image = torch.linspace(0, 1, 300).view(1, 300, 1).expand(1, 300, 300).clone()
    calls: list[int] = []

    def shrink(seen: Tensor) -> Tensor:
        rows = int((seen[0, 1, :, 150] >= 0.5).sum())
        logits = torch.full_like(seen[:, 3:], -20.0)
        logits[:, :, -max(2 * rows // 3, 1) :] = 20
        return logits

    model = Stub(lambda unit: 20 * (unit - 0.1), shrink)
    found = segment({0: model}, image, tmax=4, observe=lambda number, mask: calls.append(number))
    assert calls == [0, 1, 2, 3, 4]
    assert len(found.rdsc) == 4
    assert found.rdsc == pytest.approx([0.8] * 4, abs=0.02)
    assert found.iterations is None
    assert segment({0: model}, image, tmax=4, tol=0.7).iterations == 1


def test_nothing_found_warns_and_is_empty() -> None:
    image = np.zeros((3, 12, 13), dtype=np.float32)
    with pytest.warns(UserWarning, match="round 0 found no organ: the prediction is empty"):
        found = segment({0: Stub(bright, bright_crop)}, image)
    assert not found.mask.any()
    assert found.mask.shape == image.shape
    assert (found.rdsc, found.iterations) == ([], None)


def test_organ_lost_in_a_round_warns_and_is_empty(block: NDArray[np.float32]) -> None:
    with pytest.warns(UserWarning, match="round 1 found no organ: the prediction is empty"):
        found = segment({0: Stub(bright, lambda seen: seen[:, 3:] - 20)}, block)
    assert not found.mask.any()
    assert (found.rdsc, found.iterations) == ([0.0], None)


def test_a_single_slice_is_cut_along_axis_0_only(block: NDArray[np.float32]) -> None:
    def fail(unit: Tensor) -> Tensor:
        raise AssertionError("axis 1 of a single slice was cut")

    found = segment({0: Stub(bright, bright_crop), 1: Stub(fail, fail)}, block[3:4])
    np.testing.assert_array_equal(found.mask, block[3:4] == 1)


def test_no_round_returns_the_coarse_segmentation(block: NDArray[np.float32]) -> None:
    found = segment({0: Stub(bright, lambda seen: seen)}, block, tmax=0)
    np.testing.assert_array_equal(found.mask, block == 1)
    assert (found.rdsc, found.iterations) == ([], None)


def flood(mask: NDArray[np.bool_]) -> list[set[tuple[int, ...]]]:
    """6-connected components, voxel by voxel."""
    left = set(map(tuple, np.argwhere(mask).tolist()))
    components = []
    while left:
        stack, component = [left.pop()], set()
        while stack:
            voxel = stack.pop()
            component.add(voxel)
            for axis in range(3):
                for step in (-1, 1):
                    neighbor = tuple(v + step * (a == axis) for a, v in enumerate(voxel))
                    if neighbor in left:
                        left.remove(neighbor)
                        stack.append(neighbor)
        components.append(component)
    return components


@torch.no_grad()
def naive_segment(
    models: dict[int, CoarseToFine], image: Tensor, tmax: int, organ: Tensor | None = None
) -> tuple[Tensor, Tensor, list[float]]:
    """Algorithm 1, a unit at a time."""
    probability = mask = torch.empty(0)
    rdsc = []
    for number in range(tmax + 1):
        views = []
        for axis, model in models.items():
            slices = image.movedim(axis, 0)
            total, covered = torch.zeros_like(slices), torch.zeros(len(slices), 1, 1)
            for j in range(len(slices)):
                members = [k if 0 <= k < len(slices) else j for k in (j - 1, j, j + 1)]
                unit = slices[members][None]
                if number == 0:
                    found = model.coarse_logits(unit).sigmoid()[0]
                else:
                    box = bounding_box((mask if organ is None else organ).movedim(axis, 0)[members])
                    if box is None:
                        continue
                    attended = unit * model.saliency(probability.movedim(axis, 0)[members][None])
                    found = torch.zeros_like(unit[0])
                    crop(found, box).copy_(model.fine_logits(crop(torch.cat([attended, unit], 1), box)).sigmoid()[0])
                for channel, k in enumerate((j - 1, j, j + 1)):
                    if 0 <= k < len(slices):
                        total[k] += found[channel]
                        covered[k] += 1
            views.append((total / covered.clamp_min(1)).movedim(0, axis))
        probability = sum(views) / len(views)
        new = probability >= 0.5
        if number > 0:
            components = flood(new.numpy())
            largest = max(map(len, components))
            for component in components:
                if len(component) < largest / 2:
                    new[tuple(torch.tensor(list(component)).T)] = False
            rdsc.append(2 * float((new & mask).sum()) / float(new.sum() + mask.sum()))
        mask = new
    return mask, probability, rdsc


def random_models(name: ModelName = "mll") -> dict[int, CoarseToFine]:
    models = {}
    for axis, seed in ((0, 1), (2, 4)):
        generator = torch.Generator().manual_seed(seed)
        # As many points as pixels: which of two like ones is the more uncertain, rounding would decide.
        models[axis] = build_model(name, width=2, num_points=53 * 47, generator=generator).eval()
        for conv in (models[axis].saliency.conv1, models[axis].saliency.conv2):
            nn.init.normal_(conv.weight, std=0.3, generator=generator)
    return models


@pytest.fixture
def noise() -> Tensor:
    return torch.rand(7, 53, 47, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("name", "batch_size"), [("mll", 1), ("mll", 4), ("mln", 4)])
def test_against_a_naive_oracle(noise: Tensor, name: ModelName, batch_size: int) -> None:
    models = random_models(name)
    expected_mask, expected_probability, expected_rdsc = naive_segment(models, noise, 2)
    found = segment(models, noise, tmax=2, tol=2.0, batch_size=batch_size)
    assert 0 < expected_mask.sum() < noise.numel()
    np.testing.assert_allclose(found.probability, expected_probability, atol=1e-5)
    np.testing.assert_array_equal(found.mask, expected_mask)
    assert found.rdsc == pytest.approx(expected_rdsc)


def test_boxes_from_the_label_against_a_naive_oracle(noise: Tensor) -> None:
    organ = torch.zeros(7, 53, 47, dtype=torch.bool)
    organ[2:4, 28:31, 5:9] = True
    models = random_models()
    expected_mask, expected_probability, _ = naive_segment(models, noise, 2, organ)
    found = segment(models, noise, tmax=2, tol=2.0, organ=organ.numpy())
    np.testing.assert_allclose(found.probability, expected_probability, atol=1e-5)
    np.testing.assert_array_equal(found.mask, expected_mask)
    # Axis 0: units 1 to 4, rows 8 to 50, columns 0 to 28. Axis 2: units 4 to 9, all slices.
    outside = np.ones((7, 53, 47), dtype=bool)
    outside[:6, 8:51, :29] = False
    outside[:, 8:51, 3:11] = False
    assert (found.probability[outside] == 0).all()
    assert found.crops == [4 + 6] * 2


def test_boxes_from_the_label_find_what_the_coarse_model_missed(block: NDArray[np.float32]) -> None:
    model = Stub(lambda image: image * 0 - 20, bright_crop)
    found = segment({0: model}, block, organ=block == 1)
    np.testing.assert_array_equal(found.mask, block == 1)
    assert found.rdsc == [0.0, 1.0]
    with pytest.warns(UserWarning, match="round 1 found no organ"):
        found = segment({0: model}, block, organ=block > 1)
    assert not found.mask.any()
    assert (found.rdsc, found.iterations, found.crops) == ([1.0], 1, [0])


def test_an_unchanged_unit_keeps_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lower organ, far from the upper one, settles at once; the upper one keeps changing."""
    image = torch.zeros(11, 64, 48)
    image[1:3, 20:30, 20:30] = 1
    image[7:9, 20:30, 20:30] = 0.8
    generator = torch.Generator().manual_seed(0)
    saliency = build_model("mll", width=2, generator=generator).saliency

    class Refining(Stub):
        def fine_input(self, image: Tensor, probability: Tensor) -> Tensor:
            return torch.cat([saliency(probability), image], 1)

    def answer(seen: Tensor) -> Tensor:
        """Bright is certain; less bright depends on the round before."""
        settled = torch.where(seen[:, 3:] > 0.9, 15.0, -15.0)
        return torch.where((seen[:, 3:] > 0.7) & (seen[:, 3:] < 0.9), 40 * seen[:, :3] - 39, settled)

    def run() -> Segmentation:
        return segment({0: Refining(bright, answer)}, image, tmax=4, tol=2.0)

    kept = run()
    # Units 0 to 3 show the upper organ, 6 to 9 the lower one.
    assert kept.crops[0] == 8
    assert kept.crops[-1] == 4
    monkeypatch.setattr(torch, "equal", lambda *_: False)
    computed = run()
    assert computed.crops == [8] * 4
    assert kept.rdsc == computed.rdsc
    np.testing.assert_array_equal(kept.probability, computed.probability)


def test_a_unit_whose_box_changes_is_computed_again() -> None:
    image = torch.zeros(3, 30, 120)
    image[1, 10:20, 10:20] = 1
    image[1, 10:20, 100] = 1  # Small: it is dropped from the mask after round 1, then out of the box.
    found = segment({0: Stub(bright, bright_crop)}, image)
    assert found.crops == [3, 3]
    assert (found.probability[1, :, :40] >= 0.5).sum() == 100
    assert (found.probability[1, :, 40:] == 0).all()


def test_results_are_kept_bit_for_bit(noise: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    organ = torch.zeros(7, 53, 47, dtype=torch.bool)
    organ[:, 20:30, 20:30] = True

    def run() -> Segmentation:
        models = random_models()
        for model in models.values():
            # Blind to the round before: from round 2 on nothing changes where it is not looked at the first time.
            torch.nn.init.zeros_(model.saliency.conv1.weight)
        return segment(models, noise, tmax=3, tol=2.0, organ=organ.numpy())

    kept = run()
    monkeypatch.setattr(torch, "equal", lambda *_: False)
    computed = run()
    assert kept.crops[-1] == 0
    assert computed.crops == [kept.crops[0]] * 3
    np.testing.assert_array_equal(kept.probability, computed.probability)


def test_bf16_is_close(noise: Tensor) -> None:
    full, half = (segment(random_models(), noise, tmax=0, precision=each) for each in ("32-true", "bf16-mixed"))
    assert half.probability.dtype == np.float32
    difference = abs(full.probability - half.probability).max()
    assert 0 < difference < 0.01


def test_time_of_the_observer_is_not_counted(block: NDArray[np.float32]) -> None:
    found = segment({0: Stub(bright, bright_crop)}, block, observe=lambda number, mask: time.sleep(0.4))
    assert len(found.seconds_per_round) == 2
    assert 0 < found.seconds < 0.4


def test_array_and_tensor_give_the_same(block: NDArray[np.float32]) -> None:
    def run(image: NDArray[np.float32] | Tensor) -> Segmentation:
        return segment({0: Stub(bright, bright_crop)}, image)

    flipped = np.ascontiguousarray(block[::-1])
    for image in (torch.from_numpy(block), block.astype(np.float64), torch.from_numpy(flipped).flip(0)):
        np.testing.assert_array_equal(run(image).probability, run(block).probability)


def test_relative_dsc_by_hand() -> None:
    one = torch.tensor([True, True, True, False])
    two = torch.tensor([False, True, True, True])
    assert relative_dsc(one, two) == pytest.approx(2 / 3)
    assert relative_dsc(one, ~one) == 0
    assert relative_dsc(one & ~one, one & ~one) == 1


def test_bad_input() -> None:
    model = Stub(bright, bright_crop)
    with pytest.raises(ValueError, match=re.escape("expected `image` to be a volume (D, H, W), got shape (5, 5)")):
        segment({0: model}, np.zeros((5, 5), dtype=np.float32))
    with pytest.raises(ValueError, match="expected `image` to be finite, got NaN or infinity"):
        segment({0: model}, np.full((5, 5, 9), np.nan, dtype=np.float32))
    with pytest.raises(ValueError, match=re.escape("to have the image's shape (5, 5, 9), got (5, 5, 5)")):
        segment({0: model}, np.zeros((5, 5, 9), dtype=np.float32), organ=np.zeros((5, 5, 5), dtype=bool))
    with pytest.raises(ValueError, match=r"along axis 2 to have a side of at least 9 pixels, got .* \(5, 5, 9\)"):
        segment({0: model, 2: model}, np.zeros((5, 5, 9), dtype=np.float32))
    with pytest.raises(ValueError, match=r"`models` to hold a model of axis 0, 1 or 2 \(0 when D = 1\), got axes \[\]"):
        segment({}, np.zeros((5, 5, 5), dtype=np.float32))
    with pytest.raises(ValueError, match=r"got axes \[2\]"):
        segment({2: model}, np.zeros((1, 5, 5), dtype=np.float32))
    with pytest.raises(ValueError, match=r"got axes \[3\]"):
        segment({3: model}, np.zeros((5, 5, 5), dtype=np.float32))
    with pytest.raises(ValueError, match="expected `vote` to be one of 'mean', 'majority', got 'median'"):
        segment({0: model}, np.zeros((5, 5, 5), dtype=np.float32), vote="median")
