from __future__ import annotations

import json
import re
from itertools import product
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from multilevel_loss import MLNLoss, signed_distance_map
from multilevel_loss.functional import boundary_regression_loss
from reference.models import (
    Box,
    Branches,
    CoarseToFine,
    FusionModule,
    MultiLevelNetwork,
    PixelModule,
    build_model,
    crop,
    inside,
)
from reference.models.crop import BACKGROUND_LOGIT
from reference.models.guidance import SaliencyGuidance
from reference.models.multilevel_network import _scatter
from reference.models.pixel import PointTransformer, SelfAttention, SharedMLPs

ABLATIONS = list(product(("transformer", "mlps"), ("guidance", "convolutions")))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mln(width: int = 2, num_points: int = 64, seed: int = 0) -> CoarseToFine:
    return build_model("mln", width=width, num_points=num_points, generator=seeded(seed))


@pytest.fixture
def unit() -> tuple[Tensor, Tensor]:
    label = torch.zeros(1, 3, 61, 70)
    label[:, :, 30:40, 35:50] = 1
    return torch.rand(1, 3, 61, 70, generator=seeded()) * 0.2 + 0.5 * label, label


def network_loss(model: CoarseToFine, unit: tuple[Tensor, Tensor], **weights: float) -> Tensor:
    image, label = unit
    prediction = model(image, label, stage="I")
    branches = prediction.branches
    assert branches is not None
    loss = MLNLoss(mode="multilabel", **weights)(
        branches.region,
        branches.boundary,
        branches.pixel,
        prediction.fine,
        label,
        point_coords=branches.point_coords,
        coarse_input=prediction.coarse,
        distance_map=inside(signed_distance_map(label), prediction.box),
    )
    return cast(Tensor, loss)


@pytest.mark.parametrize(("pixel_module", "fusion_module"), ABLATIONS)
@pytest.mark.parametrize("size", [(8, 8), (37, 53)])
def test_branches_of_any_size(size: tuple[int, int], pixel_module: PixelModule, fusion_module: FusionModule) -> None:
    net = MultiLevelNetwork(width=2, num_points=100, pixel_module=pixel_module, fusion_module=fusion_module)
    branches = net(torch.rand(2, 6, *size))
    points = min(100, size[0] * size[1])  # a crop of 8×8 has no 100 pixels
    assert branches.region.shape == branches.boundary.shape == branches.fusion.shape == (2, 3, *size)
    assert branches.pixel.shape == (2, 3, points)
    assert branches.point_coords.shape == (2, points, 2)
    assert not branches.fusion.equal(branches.region)


@pytest.mark.parametrize(("pixel_module", "fusion_module"), ABLATIONS)
def test_every_parameter_has_a_gradient(
    unit: tuple[Tensor, Tensor], pixel_module: PixelModule, fusion_module: FusionModule
) -> None:
    model = build_model(
        "mln", width=4, num_points=64, pixel_module=pixel_module, fusion_module=fusion_module, generator=seeded()
    )
    network_loss(model, unit).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # What a normalization follows has no use for its bias; neither has the softmax of the attention for a key's.
        assert parameter.ndim == 1 or parameter.grad.any(), name


def test_the_first_epochs_leave_out_pixel_branch_and_fusion(unit: tuple[Tensor, Tensor]) -> None:
    model = mln()
    model.fine.fused = False
    prediction = model(*unit, stage="I")
    branches = prediction.branches
    assert branches is not None
    assert prediction.fine.equal(branches.region)
    assert branches.pixel.shape == (1, 3, 0)
    assert branches.point_coords.shape == (1, 0, 2)
    network_loss(model, unit, beta=0.0, gamma=0.0).backward()
    reached = {name.split(".")[1] for name, value in model.fine.named_parameters("fine") if value.grad is not None}
    assert reached == {"backbone", "region_aspp", "region_classifier", "boundary_aspp", "boundary_regressor"}


def test_the_region_branch_does_not_see_the_fusion(unit: tuple[Tensor, Tensor]) -> None:
    """Epochs with and without fusion predict the same region and boundary."""
    model = mln()
    with_fusion = model(*unit, stage="I").branches
    model.fine.fused = False
    without = model(*unit, stage="I").branches
    assert with_fusion.region.equal(without.region)
    assert with_fusion.boundary.equal(without.boundary)


@pytest.mark.parametrize("fused", [True, False])
def test_a_checkpoint_tells_whether_the_fusion_took_part(fused: bool) -> None:
    model, loaded = mln(), mln(seed=1)
    model.fine.fused = fused
    loaded.load_state_dict(model.state_dict())
    assert loaded.fine.fused is fused
    seen = torch.rand(1, 6, 24, 20, generator=seeded())
    expected = model.fine(seen)
    assert loaded.fine_logits(seen).equal(expected.fusion if fused else expected.region)


def test_points_are_the_most_uncertain_pixels() -> None:
    net = MultiLevelNetwork(width=2, num_points=40).eval()
    branches = net(torch.rand(1, 6, 19, 23, generator=seeded()))
    doubt = branches.region[0].abs().amin(0)  # of the slice that is decided least
    column, row = (branches.point_coords[0] * torch.tensor([23, 19]) - 0.5).round().long().unbind(1)
    assert len({*zip(row.tolist(), column.tolist(), strict=True)}) == 40
    chosen = torch.zeros_like(doubt, dtype=torch.bool)
    chosen[row, column] = True
    assert doubt[chosen].max() <= doubt[~chosen].min()


def test_points_find_their_way_back_to_the_grid() -> None:
    coords = torch.tensor([[[0.5 / 3, 0.25], [2.5 / 3, 0.75]]])  # row 0, column 0 and row 1, column 2 of 2×3 pixels
    expected = torch.tensor([[[[5.0, 0, 0], [0, 0, 6]], [[7, 0, 0], [0, 0, 8]]]])
    assert _scatter(torch.tensor([[[5.0, 6], [7, 8]]]), coords, (2, 3)).equal(expected)


@pytest.mark.parametrize("size", [(1, 1), (97, 100), (211, 512)])
def test_no_pixel_is_lost_to_rounding(size: tuple[int, int]) -> None:
    height, width = size
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    coords = torch.stack([(column + 0.5) / width, (row + 0.5) / height], -1).view(1, -1, 2)
    number = torch.arange(float(height * width)).view(1, 1, -1)
    assert _scatter(number, coords, size).equal(number.view(1, 1, *size))


def test_attention_is_multi_head_attention() -> None:
    own, peer = SelfAttention(16), nn.MultiheadAttention(16, 8, batch_first=True)
    with torch.no_grad():
        own.query_key_value.bias.normal_(generator=seeded())
        own.projection.bias.normal_(generator=seeded(1))
        for mine, theirs in ((own.query_key_value, (peer.in_proj_weight, peer.in_proj_bias)),):
            theirs[0].copy_(mine.weight)
            theirs[1].copy_(mine.bias)
    peer.out_proj.load_state_dict(own.projection.state_dict())
    points = torch.randn(2, 11, 16, generator=seeded(2))
    torch.testing.assert_close(own(points), peer(points, points, points, need_weights=False)[0])


def test_the_transformer_is_non_local_and_the_mlps_are_local() -> None:
    points = torch.randn(1, 9, 4, generator=seeded())
    moved = points.clone()
    moved[:, 8] += 1
    for module, local in ((PointTransformer(4, 16), False), (SharedMLPs(4, 16), True)):
        before, after = module(points), module(moved)
        assert before.shape == (1, 9, 16)
        assert before[:, :8].equal(after[:, :8]) == local
        shuffled = torch.randperm(9, generator=seeded(1))  # points are a set
        torch.testing.assert_close(module(points[:, shuffled]), before[:, shuffled])


def test_guidance_by_hand() -> None:
    guidance = SaliencyGuidance(1, 1)
    guidance.fusion = guidance.classifier = nn.Identity()
    with torch.no_grad():
        guidance.boundary_weight.weight.fill_(2.0)
        guidance.boundary_weight.bias.fill_(1.0)
        guidance.pixel_weight.weight.fill_(-1.0)
        guidance.pixel_weight.bias.fill_(0.0)
    region, boundary, pixel = (torch.tensor(v).view(1, 1, 1, 2) for v in ([2.0, 3.0], [1.0, 4.0], [5.0, 0.0]))
    # Boundary + pixel: 6 and 4. Weights: 13 and 9; −6 and −4. Saliency: 13·1 and 9·4; −6·5 and −4·0.
    expected = torch.tensor([[[[26.0, 108.0]], [[-60.0, 0.0]]]])
    assert guidance(region, boundary, pixel).equal(expected)


def test_units_of_a_batch_are_apart() -> None:
    net = mln(num_points=33 * 26).eval()  # all: which of two like pixels is the more uncertain, rounding would decide
    seen = torch.rand(3, 6, 33, 26, generator=seeded())
    torch.testing.assert_close(net.fine_logits(seen), torch.cat([net.fine_logits(unit[None]) for unit in seen]))


def test_prediction_is_the_fusion_of_the_crop(unit: tuple[Tensor, Tensor]) -> None:
    image, label = unit
    model = mln().eval()
    prediction = model(image, label, stage="I")
    seen = crop(model.fine_input(image, prediction.coarse.sigmoid()), prediction.box)
    torch.testing.assert_close(crop(prediction.fine, prediction.box), model.fine_logits(seen))
    torch.testing.assert_close(prediction.points, model.fine_logits(seen))


def test_branches_on_the_image() -> None:
    box, size = Box(2, 5, 3, 7), (9, 8)
    field = torch.arange(1.0, 13).view(1, 1, 3, 4)
    coords = torch.tensor([[[0.125, 0.5 / 3], [0.875, 2.5 / 3]]])  # the first and the last pixel
    branches = Branches(field, field + 20, torch.ones(1, 1, 2), coords, field + 40).uncrop(box, size)
    outside = torch.ones(size, dtype=torch.bool)
    outside[2:5, 3:7] = False
    for predicted, fill, start in zip(branches[:2], (BACKGROUND_LOGIT, 0.0), (0, 20), strict=True):
        assert (predicted[..., outside] == fill).all()
        assert crop(predicted, box).equal(field + start)
    assert (branches.fusion[..., outside] == BACKGROUND_LOGIT).all()
    torch.testing.assert_close(branches.point_coords, torch.tensor([[[3.5 / 8, 2.5 / 9], [6.5 / 8, 4.5 / 9]]]))


def test_organ_outside_the_box_counts_but_no_distance_is_asked_for_there() -> None:
    label = torch.zeros(1, 1, 24, 30)
    label[..., 5:15, 8:20] = 1
    box = Box(3, 11, 6, 17)  # cuts the organ
    regressed = torch.randn(1, 1, *box.size, generator=seeded(), requires_grad=True)
    logits = torch.zeros(1, 1, *box.size)
    branches = Branches(logits, regressed, logits[..., 0], torch.zeros(1, 11, 2), logits).uncrop(box, (24, 30))
    distances = signed_distance_map(label)
    loss = boundary_regression_loss(branches.boundary, label, distance_map=inside(distances, box))
    # The map of the whole label, on the crop; a mean over the image.
    there = crop(distances, box)
    expected = (regressed.sigmoid() * there + (regressed + there).square()).sum() / (24 * 30)
    torch.testing.assert_close(loss, expected)
    components = MLNLoss(alpha=0.0, beta=0.0, gamma=0.0, return_components=True)(
        branches.region, branches.boundary, branches.pixel, branches.fusion, label, point_coords=branches.point_coords
    )[1]
    # p = ½ on 88 pixels, of which 6 · 9 are organ; the other 66 of its 120 are missed.
    assert components["region"].item() == pytest.approx(1 - 2 * 27 / (44 + 120), abs=1e-5)


def test_the_boundary_is_positive_inside(unit: tuple[Tensor, Tensor]) -> None:
    image, label = unit
    model = mln(width=4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        network_loss(model, unit, beta=0.0, gamma=0.0).backward()
        optimizer.step()
    prediction = model(image, label, stage="I")
    regressed = crop(prediction.branches.boundary, prediction.box)
    distances = crop(signed_distance_map(label), prediction.box)
    clear = distances.abs() >= 2
    assert ((regressed > 0) == (distances < 0))[clear].float().mean() > 0.97
    assert torch.stack([regressed, -distances]).flatten(1).corrcoef()[0, 1] > 0.9


def test_branches_start_undecided_and_distances_on_both_sides() -> None:
    branches = mln(width=8).fine(torch.rand(1, 6, 40, 40, generator=seeded()))
    for logits in (branches.region, branches.pixel, branches.fusion):
        assert logits.abs().mean() < 0.3
    assert 0.3 < branches.boundary.std() < 3
    assert 0.05 < (branches.boundary > 0).float().mean() < 0.95


def test_half_precision(unit: tuple[Tensor, Tensor]) -> None:
    model = mln()
    with torch.autocast("cpu", torch.bfloat16):
        loss = network_loss(model, unit)
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["mll", "mln", "rstn"])
def test_config_rebuilds_the_model(name: str) -> None:
    model = build_model(name, width=2, max_pool=False, num_points=9, pixel_module="mlps", generator=seeded())
    rebuilt = build_model(**json.loads(json.dumps(model.config)))
    assert rebuilt.config == model.config
    rebuilt.load_state_dict(model.state_dict())
    seen = torch.rand(1, 6, 20, 24, generator=seeded())
    assert rebuilt.eval().fine_logits(seen).equal(model.eval().fine_logits(seen))


def test_options_are_checked() -> None:
    for option, value, rule in (
        ("name", "unet", "one of 'mll', 'mln', 'rstn', got 'unet'"),
        ("pixel_module", "mlp", "one of 'transformer', 'mlps', got 'mlp'"),
        ("fusion_module", "sum", "one of 'guidance', 'convolutions', got 'sum'"),
        ("conv1_stride", 4, "1 or 2, got 4"),
    ):
        with pytest.raises(ValueError, match=re.escape(f"expected `{option}` to be {rule}")):
            build_model(**({"name": "mln", "width": 2} | {option: value}))
