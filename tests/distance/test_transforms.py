import functools
import re
import warnings
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from multilevel_loss.distance import DistanceMapCache, DistanceMapDataset, SignedDistanceMapd, signed_distance_map


def labels(*shape: int, classes: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


# What augmentation does to a map


@st.composite
def label_maps(draw):
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    return labels(1, *shape, classes=3, seed=draw(st.integers(0, 99)))


@settings(max_examples=50, deadline=None)
@given(label_maps(), st.data(), st.sampled_from(["inner", "midpoint", "kervadec"]), st.booleans())
def test_flips_and_permutations_commute_with_the_map(target, data, boundary, in_mm):
    ndim = target.ndim - 1
    spacing = (3.0, 1.0, 0.7)[:ndim]
    compute = functools.partial(signed_distance_map, num_classes=3, boundary=boundary)
    flipped = data.draw(st.lists(st.integers(1, ndim), unique=True))
    order = data.draw(st.permutations(range(ndim)))
    maps = compute(target, spacing=spacing if in_mm else None)
    moved_spacing = tuple(spacing[axis] for axis in order) if in_mm else None
    moved = target.flip(flipped).permute(0, *(axis + 1 for axis in order))
    expected = maps.flip([axis + 1 for axis in flipped]).permute(0, 1, *(axis + 2 for axis in order))
    # With a spacing the axes' squares are added in another order; without one they are integers.
    torch.testing.assert_close(compute(moved, spacing=moved_spacing), expected, rtol=1e-6 if in_mm else 0, atol=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 7), st.integers(1, 7), st.integers(0, 3), st.integers(0, 99))
def test_rotations_by_90_degrees_commute_with_the_map_where_the_spacings_are_equal(depth, height, width, turns, seed):
    target = labels(1, depth, height, width, seed=seed)
    maps = signed_distance_map(target, spacing=(5.0, 0.7, 0.7))
    rotated = signed_distance_map(target.rot90(turns, (2, 3)), spacing=(5.0, 0.7, 0.7))
    torch.testing.assert_close(rotated, maps.rot90(turns, (3, 4)), rtol=1e-6, atol=0)


def test_a_rotation_between_axes_of_unequal_spacing_needs_the_spacing_turned_too():
    target = torch.tensor([[[0, 0, 0], [0, 1, 0], [0, 0, 0]]])
    assert signed_distance_map(target, spacing=(2.0, 1.0))[0, 0].tolist() != (
        signed_distance_map(target, spacing=(2.0, 1.0))[0, 0].rot90().tolist()
    )
    turned = signed_distance_map(target.rot90(1, (1, 2)), spacing=(1.0, 2.0))
    assert torch.equal(turned, signed_distance_map(target, spacing=(2.0, 1.0)).rot90(1, (2, 3)))


def test_the_map_is_cropped_because_the_crop_does_not_know_the_boundary_beyond_its_edge():
    target = torch.tensor([[0, 1, 1, 1, 1, 1, 0, 0]])
    maps = signed_distance_map(target)
    assert maps[0, 0].tolist() == [1, 0, -1, -2, -1, 0, 1, 2]
    # The crop's own boundary is the one on the right alone.
    assert maps[0, 0, 2:].tolist() == [-1, -2, -1, 0, 1, 2]
    assert signed_distance_map(target[:, 2:])[0, 0].tolist() == [-3, -2, -1, 0, 1, 2]
    # All foreground, all background: no boundary, so no distance.
    assert signed_distance_map(target[:, 2:5])[0, 0].tolist() == [0, 0, 0]
    assert signed_distance_map(target[:, 6:])[0, 0].tolist() == [0, 0]


# DistanceMapDataset


def test_a_tuple_gets_the_map_of_its_label_appended():
    samples = [(torch.rand(1, 5, 7), labels(5, 7, seed=index), f"case {index}") for index in range(3)]
    dataset = DistanceMapDataset(samples)
    assert len(dataset) == 3
    image, label, name, distance = dataset[2]
    assert (image is samples[2][0], label is samples[2][1], name) == (True, True, "case 2")
    assert torch.equal(distance, signed_distance_map(label[None])[0])


def test_a_mapping_gets_the_map_under_a_key_of_its_own():
    sample = {"image": torch.rand(1, 5, 7), "mask": np.array([[0, 1, 2]], dtype=np.int16), "spacing": (3.0, 2.0)}
    compute = functools.partial(signed_distance_map, num_classes=3)
    result = DistanceMapDataset([sample], compute, label="mask", spacing="spacing")[0]
    assert list(result) == [*sample, "mask_distance_map"]
    assert result["mask_distance_map"].tolist() == [[[0, 2, 4]], [[2, 0, 2]], [[4, 2, 0]]]
    assert "mask_distance_map" not in sample


def test_a_tuple_may_hold_its_spacing_and_a_one_hot_label():
    label = torch.nn.functional.one_hot(labels(4, 5, classes=3), 3).movedim(-1, 0).float()
    ((_, spacing, distance),) = [*DistanceMapDataset([(label, [2.0, 1.0])], label=0, spacing=1)]
    assert torch.equal(distance, signed_distance_map(label[None], spacing=spacing)[0])


def test_a_loader_batches_maps_from_a_cache(tmp_path):
    samples = [(torch.rand(1, 5, 7), labels(5, 7, classes=3, seed=index)) for index in range(4)]
    dataset = DistanceMapDataset(samples, DistanceMapCache(tmp_path, num_classes=3, spacing=2.0))
    for _ in range(2):
        for _, label, distance in DataLoader(dataset, batch_size=2):
            assert torch.equal(distance, signed_distance_map(label, num_classes=3, spacing=2.0))


# SignedDistanceMapd


def test_the_transform_adds_maps_to_a_copy_of_the_dictionary():
    data = {"image": 1, "organ": labels(1, 5, 7), "tumor": labels(1, 5, 7, seed=1)}
    result = SignedDistanceMapd(["organ", "tumor"])(data)
    assert list(data) == ["image", "organ", "tumor"]
    assert list(result) == ["image", "organ", "tumor", "organ_distance_map", "tumor_distance_map"]
    for key in ("organ", "tumor"):
        assert torch.equal(result[f"{key}_distance_map"], signed_distance_map(data[key])[0])


def test_output_keys_name_the_maps():
    data = {"organ": labels(1, 5, 7), "tumor": labels(1, 5, 7, seed=1)}
    assert list(SignedDistanceMapd("organ", output_keys="phi")(data)) == ["organ", "tumor", "phi"]
    result = SignedDistanceMapd(("organ", "tumor"), output_keys=("a", "b"))(data)
    assert torch.equal(result["b"], signed_distance_map(data["tumor"])[0])
    message = "expected `output_keys` to be as many as `keys`, ('organ', 'tumor'), got ('a',)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SignedDistanceMapd(("organ", "tumor"), output_keys="a")


def test_missing_keys_are_an_error_unless_allowed():
    with pytest.raises(KeyError, match="tumor"):
        SignedDistanceMapd(("organ", "tumor"))({"organ": labels(1, 5, 7)})
    result = SignedDistanceMapd(("organ", "tumor"), allow_missing_keys=True)({"organ": labels(1, 5, 7)})
    assert list(result) == ["organ", "organ_distance_map"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.uint8, torch.int64])
def test_one_channel_is_a_label_map_whatever_its_dtype(dtype):
    label = labels(1, 3, 5, 7, classes=4)
    transform = SignedDistanceMapd("label", functools.partial(signed_distance_map, num_classes=4))
    expected = signed_distance_map(label, num_classes=4)[0]
    assert torch.equal(transform({"label": label.to(dtype)})["label_distance_map"], expected)
    assert torch.equal(transform({"label": label.to(dtype).numpy()})["label_distance_map"], expected)


@pytest.mark.parametrize("value", [0.5, float("nan"), 1e30])
def test_a_label_that_is_no_whole_number_is_refused(value):
    message = f"expected a label map to hold whole numbers, got {value:g}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SignedDistanceMapd("label")({"label": torch.tensor([[0.0, value]])})


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.bool])
def test_several_channels_are_one_hot(dtype):
    label = labels(5, 7, classes=3)
    one_hot = torch.nn.functional.one_hot(label, 3).movedim(-1, 0).to(dtype)
    distance = SignedDistanceMapd("label")({"label": one_hot})["label_distance_map"]
    assert torch.equal(distance, signed_distance_map(label[None], num_classes=3)[0])


def test_the_spacing_comes_from_its_key():
    data = {"label": torch.tensor([[[0, 0, 1]]]), "spacing": np.array([7.0, 2.0])}
    assert SignedDistanceMapd("label", spacing_key="spacing")(data)["label_distance_map"].tolist() == [[[4, 2, 0]]]


# In MONAI


@pytest.fixture(scope="module")
def monai():
    """MONAI with its `data` and `transforms`, which are deprecation warnings to import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("monai", reason="needs MONAI, from the dependency group `peers`")
        pytest.importorskip("monai.data")
        pytest.importorskip("monai.transforms")
    return module


@pytest.fixture
def volume(monai):
    """A sample with an anisotropic, mirrored affine."""
    affine = torch.diag(torch.tensor([-0.7, 0.7, 5.0, 1.0], dtype=torch.float64))
    label = monai.data.MetaTensor(labels(1, 10, 9, 6, classes=3).float(), affine=affine)
    return {"image": monai.data.MetaTensor(torch.rand(1, 10, 9, 6), affine=affine), "label": label}


COMPUTE = functools.partial(signed_distance_map, num_classes=3)
ALL = ("image", "label", "label_distance_map")


def test_a_meta_tensor_gives_its_spacing_and_keeps_its_metadata(monai, volume):
    distance = SignedDistanceMapd("label", COMPUTE, spacing_key="label")(volume)["label_distance_map"]
    assert isinstance(distance, monai.data.MetaTensor)
    assert torch.equal(distance.affine, volume["label"].affine)
    expected = signed_distance_map(labels(1, 10, 9, 6, classes=3), num_classes=3, spacing=(0.7, 0.7, 5.0))[0]
    torch.testing.assert_close(distance.as_tensor(), expected)


def test_two_axes_take_the_first_two_of_the_affine():
    class MetaTensorOfMONAI15(NamedTuple):  # whose `pixdim` has three values even where the image has two
        pixdim: torch.Tensor

    data = {"label": torch.tensor([[[0, 0, 1]]]), "image": MetaTensorOfMONAI15(torch.tensor([7.0, 2.0, 5.0]))}
    result = SignedDistanceMapd("label", spacing_key="image")(data)
    assert result["label_distance_map"].tolist() == [[[4, 2, 0]]]


def test_the_map_follows_its_label_through_compose(monai, volume):
    transforms = monai.transforms
    pipeline = transforms.Compose(
        [
            SignedDistanceMapd("label", COMPUTE, spacing_key="label"),
            transforms.Orientationd(ALL, axcodes="RAS", labels=None),
            transforms.RandFlipd(ALL, prob=0.5, spatial_axis=1),
            transforms.RandRotate90d(ALL, prob=0.5),
            SignedDistanceMapd("label", COMPUTE, output_keys="expected", spacing_key="label"),
            transforms.RandSpatialCropd((*ALL, "expected"), roi_size=(5, 4, 3), random_size=False),
        ]
    )
    for seed in range(6):
        result = pipeline.set_random_state(seed)(volume)
        distance, expected, label = (result[key].as_tensor() for key in ("label_distance_map", "expected", "label"))
        assert distance.shape == (3, 5, 4, 3)
        torch.testing.assert_close(distance, expected, rtol=1e-6, atol=0)
        assert torch.equal(distance <= 0, label == torch.arange(3).view(3, 1, 1, 1))


def test_it_works_with_a_cache_in_a_loader_of_monai(monai, volume, tmp_path):
    maps = DistanceMapCache(tmp_path, num_classes=3)
    dataset = monai.data.Dataset([volume, volume], monai.transforms.Compose([SignedDistanceMapd("label", maps)]))
    (batch,) = monai.data.DataLoader(dataset, batch_size=2)
    expected = signed_distance_map(volume["label"].as_tensor()[0][None].long(), num_classes=3)
    torch.testing.assert_close(batch["label_distance_map"].as_tensor(), expected.expand(2, -1, -1, -1, -1))
    assert len(list(tmp_path.iterdir())) == 1
