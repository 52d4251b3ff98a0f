from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reference.models import CoarseToFine, DeepLab, ModelName, ResNet18, Stage, build_model
from reference.models.coarse_to_fine import SaliencyTransformation
from reference.models.crop import BACKGROUND_LOGIT, MIN_SIDE, Box, bounding_box


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def torchvision_like(generator: torch.Generator) -> dict[str, Tensor]:
    """A state dict with the names and shapes of torchvision's resnet18, written out independently of ours."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), "fc.weight": (1000, 512), "fc.bias": (1000,)}
    norms = {"bn1": 64}
    for layer, channels in enumerate((64, 128, 256, 512), start=1):
        for block in (0, 1):
            first = channels // 2 if block == 0 and layer > 1 else channels
            shapes[f"layer{layer}.{block}.conv1.weight"] = (channels, first, 3, 3)
            shapes[f"layer{layer}.{block}.conv2.weight"] = (channels, channels, 3, 3)
            norms |= {f"layer{layer}.{block}.bn1": channels, f"layer{layer}.{block}.bn2": channels}
        if layer > 1:
            shapes[f"layer{layer}.0.downsample.0.weight"] = (channels, channels // 2, 1, 1)
            norms[f"layer{layer}.0.downsample.1"] = channels
    for name, channels in norms.items():
        shapes |= {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {name: 0.05 * torch.rand(shape, generator=generator) for name, shape in shapes.items()}


def test_parameters_of_the_paper() -> None:
    with torch.device("meta"):
        model = build_model("mll")
    assert parameters(model.coarse.backbone) == 11_176_512
    assert parameters(model.coarse.aspp) == parameters(model.fine.aspp) == 4_133_376
    assert parameters(model.coarse.classifier) == 771
    assert parameters(model.fine.backbone) == 11_176_512 + 9_408
    assert parameters(model.saliency) == 312
    assert parameters(model) == 30_631_038
    assert 3 * parameters(model) == 91_893_114


@pytest.mark.parametrize(
    ("conv1_stride", "max_pool", "out_stride", "flops"),
    [(2, True, 8, 1.344e11), (2, False, 4, 1.486e11), (1, True, 4, 1.489e11), (1, False, 2, 2.074e11)],
)
def test_flops_of_table_2(conv1_stride: int, max_pool: bool, out_stride: int, flops: float) -> None:
    with torch.device("meta"):
        model = build_model("mll", conv1_stride=conv1_stride, max_pool=max_pool)
        with FlopCounterMode(display=False) as counter:
            image = torch.empty(1, 3, 512, 512)
            model.fine_input(image, model.coarse_logits(image))
            logits = model.fine(torch.empty(1, 6, 100, 100))
    assert model.fine.backbone.out_stride == out_stride
    assert logits.shape == (1, 3, -(-100 // out_stride), -(-100 // out_stride))
    assert counter.get_total_flops() == pytest.approx(flops, rel=0.005)


def test_the_model_is_the_third_row_of_table_2() -> None:
    model = build_model("mll", width=2)
    assert (model.coarse.backbone.out_stride, model.fine.backbone.out_stride) == (8, 4)


def test_atrous_rates() -> None:
    layers = dict(build_model("mll", width=2).fine.named_modules())
    rates = {name: module.dilation[0] for name, module in layers.items() if isinstance(module, nn.Conv2d)}
    for layer, rate in enumerate((1, 1, 2, 4), start=1):
        assert {rates[f"backbone.layer{layer}.{block}.conv{i}"] for block in (0, 1) for i in (1, 2)} == {rate}
    assert [rates[f"aspp.branches.{branch}.0"] for branch in range(4)] == [1, 6, 12, 18]


@pytest.mark.parametrize("size", [(8, 8), (37, 53), (64, 41)])
def test_features_of_any_size(size: tuple[int, int]) -> None:
    logits = DeepLab(3, 3, width=2, conv1_stride=1).eval()(torch.rand(2, 3, *size))
    assert logits.shape == (2, 3, -(-size[0] // 4), -(-size[1] // 4))


def test_receptive_field_is_symmetric() -> None:
    """An atrous stack that pads wrongly would shift the features; flipping the weights and the image must flip them."""
    net, flipped = (ResNet18(1, width=2, conv1_stride=1, max_pool=False).double() for _ in range(2))
    flipped.load_state_dict({k: v.flip(-1) if v.ndim == 4 else v for k, v in net.state_dict().items()})
    image = torch.rand(1, 1, 31, 33, dtype=torch.float64)  # odd, so that the grid of stride 2 is its own mirror image
    torch.testing.assert_close(flipped(image.flip(-1)), net(image).flip(-1))


def test_imagenet_weights_load_by_torchvision_names(tmp_path: Path) -> None:
    state = torchvision_like(seeded())
    torch.save(state, tmp_path / "resnet18.pth")
    model = build_model("mll")
    model.load_imagenet(tmp_path / "resnet18.pth")
    for name, value in model.coarse.backbone.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, state[name], rtol=0, atol=0)
    image = torch.rand(1, 3, 32, 32, generator=seeded(1))
    conv = model.fine.backbone.conv1
    expected = nn.functional.conv2d(image, state["conv1.weight"], padding=3)
    torch.testing.assert_close(conv(torch.cat([image, image], 1)), expected)


def test_imagenet_weights_come_from_torch_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    state = torchvision_like(seeded())
    asked = []

    def hub(url: str, **options: object) -> dict[str, Tensor]:
        asked.append((url, options))
        return state

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", hub)
    backbone = ResNet18()
    backbone.load_imagenet()
    options = {"map_location": "cpu", "check_hash": True, "weights_only": True}
    assert asked == [("https://download.pytorch.org/models/resnet18-f37072fd.pth", options)]
    assert backbone.layer4[1].conv2.weight.equal(state["layer4.1.conv2.weight"])


@pytest.mark.parametrize("name", ["mll", "mln"])
def test_imagenet_weights_reach_both_models(name: ModelName) -> None:
    model = build_model(name)
    state = torchvision_like(seeded())
    model.load_imagenet(state)
    for net in (model.coarse, model.fine):
        assert net.backbone.layer1[0].conv1.weight.equal(state["layer1.0.conv1.weight"])


def test_imagenet_weights_need_the_paper_width() -> None:
    message = "(width 8; ImageNet weights need 64), got conv1.weight of shape (64, 3, 7, 7) instead of (8, 3, 7, 7)"
    with pytest.raises(ValueError, match=re.escape(message)):
        build_model("mll", width=8).load_imagenet(torchvision_like(seeded()))


def test_imagenet_weights_of_another_network() -> None:
    state: Mapping[str, Tensor] = {
        name.replace("layer4", "block4"): v for name, v in torchvision_like(seeded()).items()
    }
    with pytest.raises(ValueError, match=r"missing \['layer4\.0\..*unknown \['block4\.0\."):
        ResNet18().load_imagenet(state)


def test_saliency_starts_near_the_identity() -> None:
    model = build_model("mll", width=2, generator=seeded())
    image = torch.rand(1, 3, 20, 24, generator=seeded(1))
    seen = model.fine_input(image, torch.rand(1, 3, 20, 24, generator=seeded(2)))
    assert seen.shape == (1, 6, 20, 24)
    torch.testing.assert_close(seen[:, 3:], image)
    assert (seen[:, :3] - image).abs().max() < 0.3


def test_saliency_by_hand() -> None:
    saliency = SaliencyTransformation()
    with torch.no_grad():
        for parameter in saliency.parameters():
            parameter.zero_()
        saliency.conv1.weight[:, :, 2, 2] = torch.eye(3)
        saliency.conv1.bias.fill_(-0.5)
        saliency.conv2.weight[:, :, 1, 1] = 2 * torch.eye(3)
        saliency.conv2.bias.fill_(1.0)
    probability = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1).expand(1, 3, 4, 5)
    expected = torch.tensor([1.0, 1.0, 2.0]).view(1, 3, 1, 1).expand(1, 3, 4, 5)
    torch.testing.assert_close(saliency(probability), expected)


def test_initial_weights_come_from_the_generator() -> None:
    one, two = (build_model("mll", width=2, generator=seeded(7)).state_dict() for _ in range(2))
    other = build_model("mll", width=2, generator=seeded(8)).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["fine.aspp.projection.0.weight"], other["fine.aspp.projection.0.weight"])


@pytest.fixture
def unit() -> tuple[Tensor, Tensor]:
    label = torch.zeros(1, 3, 72, 90)
    label[:, 1:, 30:40, 35:50] = 1
    return torch.rand(1, 3, 72, 90, generator=seeded()) * 0.2 + 0.5 * label, label


def background(model: CoarseToFine, logit: float = -5.0) -> CoarseToFine:
    """Make the coarse model answer `logit` everywhere."""
    with torch.no_grad():
        model.coarse.classifier.weight.zero_()
        model.coarse.classifier.bias.fill_(logit)
    return model


@pytest.mark.parametrize("stage", ["S", "I"])
def test_label_box_of_the_first_stages(unit: tuple[Tensor, Tensor], stage: Stage) -> None:
    image, label = unit
    prediction = build_model("mll", width=2)(image, label, stage=stage)
    assert prediction.box == Box(10, 60, 15, 70)
    assert prediction.coarse.shape == prediction.fine.shape == (1, 3, 72, 90)
    assert prediction.points.shape == (1, 3, 13, 14)
    outside = torch.ones(72, 90, dtype=torch.bool)
    outside[10:60, 15:70] = False
    assert (prediction.fine[..., outside] == BACKGROUND_LOGIT).all()
    assert (prediction.fine[..., ~outside] > BACKGROUND_LOGIT).all()


def test_stages_join_the_models(unit: tuple[Tensor, Tensor]) -> None:
    """S trains the models apart; in I and J the fine model's loss reaches the coarse model through the saliency."""
    image, label = unit
    for stage, joint in (("S", False), ("I", True), ("J", True)):
        model = build_model("mll", width=2, generator=seeded())
        model(image, label, stage=stage).fine.sum().backward()
        reached = [module.classifier.weight.grad is not None for module in (model.coarse, model.fine)]
        assert reached == [joint, True], stage
        assert (model.saliency.conv1.weight.grad is not None) == joint


def test_the_first_stage_shows_the_raw_image(unit: tuple[Tensor, Tensor]) -> None:
    image, label = unit
    model = build_model("mll", width=2).eval()
    prediction = model(image, label, stage="S")
    raw = image[..., 10:60, 15:70]
    torch.testing.assert_close(prediction.points, model.fine(torch.cat([raw, raw], 1)))


def test_coarse_box_of_the_last_stage(unit: tuple[Tensor, Tensor]) -> None:
    image, label = unit
    model = build_model("mll", width=2, generator=seeded(3)).eval()
    prediction = model(image, label, stage="J")
    assert prediction.box == bounding_box(prediction.coarse >= 0)
    seen = model.fine_input(image, prediction.coarse.sigmoid())
    box = prediction.box
    torch.testing.assert_close(
        prediction.points, model.fine(seen[..., box.top : box.bottom, box.left : box.right]), rtol=1e-4, atol=1e-5
    )


def test_empty_coarse_box_falls_back_to_the_label_then_to_the_image(unit: tuple[Tensor, Tensor]) -> None:
    image, label = unit
    model = background(build_model("mll", width=2))
    assert model(image, label, stage="J").box == Box(10, 60, 15, 70)
    assert model(image, torch.zeros_like(label), stage="J").box == Box(0, 72, 0, 90)
    assert model(image).box == Box(0, 72, 0, 90)


def test_jitter_moves_the_box(unit: tuple[Tensor, Tensor]) -> None:
    image, label = unit
    model = build_model("mll", width=2).eval()
    generator = seeded(1)
    boxes = {model(image, label, stage="S", jitter=generator).box for _ in range(12)}
    assert len(boxes) > 3
    assert Box(10, 60, 15, 70) in boxes


def test_training_at_batch_1_with_the_smallest_crop() -> None:
    """Image pooling leaves one value a channel: its normalization uses, and keeps, the running statistics."""
    fine = build_model("mll", width=2).fine
    fine(torch.rand(1, 6, MIN_SIDE, MIN_SIDE)).sum().backward()
    pooled = fine.aspp.pooling[2]
    assert pooled.weight.grad is not None
    assert pooled.num_batches_tracked == 0
    assert pooled.running_var.equal(torch.ones(8))


@pytest.mark.parametrize(("conv1_stride", "max_pool"), [(2, True), (2, False), (1, True), (1, False)])
def test_every_row_of_table_2_trains_on_the_smallest_crop(conv1_stride: int, max_pool: bool) -> None:
    for name in ("mll", "mln"):
        model = build_model(name, width=2, conv1_stride=conv1_stride, max_pool=max_pool)
        logits = model.fine_logits(torch.rand(1, 6, MIN_SIDE, MIN_SIDE))
        logits.sum().backward()
        assert logits.shape == (1, 3, MIN_SIDE, MIN_SIDE)
        assert model.fine.backbone.conv1.weight.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 1, 16, 16), (3, 16, 16)])
def test_unit_shape_is_checked(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=re.escape(f"`image` to be one unit of slices (1, 3, H, W), got shape {shape}")
    ):
        build_model("mll", width=2)(torch.rand(shape))


def test_stage_is_checked() -> None:
    model = build_model("mll", width=2)
    with pytest.raises(ValueError, match="expected `stage` to be one of 'S', 'I', 'J', got 'P'"):
        model(torch.rand(1, 3, 16, 16), stage="P")
    with pytest.raises(ValueError, match="expected `label` in stage I, which crops by it, got None"):
        model(torch.rand(1, 3, 16, 16), stage="I")


def test_a_unit_is_normalized_by_itself_in_training_and_in_testing() -> None:
    net = DeepLab(3, 3, width=2)
    units = torch.rand(2, 3, 40, 48)
    trained = torch.cat([net.train()(unit[None]) for unit in units])
    torch.testing.assert_close(net.eval()(units), trained)
    norm, plain = net.backbone.bn1.eval(), torch.nn.BatchNorm2d(2).train()
    features = torch.randn(1, 2, 9, 7)
    torch.testing.assert_close(norm(features), plain(features))  # at a batch of one it is batch normalization
