from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from reference.models import FCN8s, build_model
from reference.models.fcn import BilinearUpsampling


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def torchvision_like(width: int, fill: Callable[[tuple[int, ...]], Tensor]) -> dict[str, Tensor]:
    """A state dict with the names and shapes of torchvision's vgg16, written out independently of ours."""
    convolutions = {0: 1, 2: 1, 5: 2, 7: 2, 10: 4, 12: 4, 14: 4, 17: 8, 19: 8, 21: 8, 24: 8, 26: 8, 28: 8}
    shapes: dict[str, tuple[int, ...]] = {}
    before = 3
    for layer, multiple in convolutions.items():
        shapes[f"features.{layer}.weight"] = (multiple * width, before, 3, 3)
        shapes[f"features.{layer}.bias"] = (multiple * width,)
        before = multiple * width
    for layer, (inputs, outputs) in {0: (392 * width, 64 * width), 3: (64 * width, 64 * width)}.items():
        shapes |= {f"classifier.{layer}.weight": (outputs, inputs), f"classifier.{layer}.bias": (outputs,)}
    shapes |= {"classifier.6.weight": (1000, 64 * width), "classifier.6.bias": (1000,)}
    return {name: fill(shape) for name, shape in shapes.items()}


def test_parameters_of_fcn_8s() -> None:
    with torch.device("meta"):
        net = FCN8s(3)
    assert sum(p.numel() for p in net.backbone.parameters()) == 138_357_544 - 4_097_000  # VGG-16 without its last layer
    assert sum(p.numel() for p in net.parameters()) == 134_260_544 + 3 * (4096 + 512 + 256 + 3) + 9 * (16 + 16 + 256)


@pytest.mark.parametrize("size", [(1, 1), (8, 11), (33, 64)])
def test_logits_of_any_size(size: tuple[int, int]) -> None:
    assert FCN8s(3, width=2).eval()(torch.rand(2, 6, *size)).shape == (2, 3, *size)


def test_only_the_attended_image_is_seen() -> None:
    net = FCN8s(3, width=2).eval()
    seen = torch.rand(1, 6, 9, 8)
    assert net(seen).equal(net(seen[:, :3]))


class Ramps(nn.Module):
    """A backbone that answers where in the image the receptive field of each feature is centred, from one layer."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, image: Tensor) -> list[Tensor]:
        ramps = []
        # Padded by 100, a 3×3 convolution and three, four or five poolings; fc6 begins at the fourth of 7 cells.
        for layer, (stride, start) in enumerate(((8, -99), (16, -99), (32, -99 + 3 * 32))):
            height, width = (-(-(side + 198) // stride) - (6 if layer == 2 else 0) for side in image.shape[2:])
            centre = start + (stride - 1) / 2
            row, column = centre + stride * torch.arange(height), centre + stride * torch.arange(width)
            ramp = torch.stack(torch.meshgrid(row, column, indexing="ij")).unsqueeze(0)
            ramps.append(ramp if layer == self.layer else torch.zeros_like(ramp))
        return ramps


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("size", [(160, 203), (96, 97)])
def test_scores_are_put_where_their_receptive_fields_are(size: tuple[int, int], layer: int) -> None:
    """Bilinear interpolation keeps a ramp: it must answer its own coordinates, away from where the scores end."""
    net = FCN8s(2, width=1)
    net.backbone = Ramps(layer)
    for classifier in ("score_pool3", "score_pool4", "score_fc7"):
        setattr(net, classifier, nn.Identity())
    answered = net(torch.empty(1, 3, *size))[0]
    expected = torch.stack(torch.meshgrid(*(torch.arange(float(side)) for side in size), indexing="ij"))
    inner = (slice(None), slice(32, size[0] - 32), slice(32, size[1] - 32))
    torch.testing.assert_close(answered[inner], expected[inner], rtol=0, atol=1e-3)


@pytest.mark.parametrize("stride", [2, 8])
def test_upsampling_starts_bilinear(stride: int) -> None:
    image = torch.rand(1, 3, 5, 6)
    upsampled = BilinearUpsampling(3, stride)(image)
    expected = nn.functional.interpolate(image, scale_factor=stride, mode="bilinear", align_corners=False)
    half = stride // 2  # the kernel's overlap on each side
    inner = slice(stride // 2, -(stride // 2))  # interpolate repeats the edge, the convolution fades
    torch.testing.assert_close(
        upsampled[..., half:-half, half:-half][..., inner, inner], expected[..., inner, inner], rtol=1e-5, atol=1e-6
    )


def test_imagenet_weights_load_by_torchvision_names() -> None:
    state = torchvision_like(2, lambda shape: torch.rand(shape, generator=seeded()))
    model = build_model("rstn", width=2)
    model.load_imagenet(state)
    for net in (model.coarse, model.fine):
        assert net.backbone.features[28].weight.equal(state["features.28.weight"])
        patch = torch.rand(1, 16, 7, 7, dtype=torch.float64)
        linear = patch.flatten() @ state["classifier.0.weight"].double().T + state["classifier.0.bias"]
        torch.testing.assert_close(net.backbone.fc6.double()(patch).flatten(), linear)
        assert net.backbone.fc7.weight.flatten(1).equal(state["classifier.3.weight"])


def test_imagenet_weights_fit_at_the_published_width() -> None:
    with torch.device("meta"):
        FCN8s(3).load_imagenet(torchvision_like(64, torch.empty))


def test_imagenet_weights_of_another_network() -> None:
    state = torchvision_like(2, torch.zeros)
    del state["features.28.bias"]
    with pytest.raises(ValueError, match=r"torchvision's vgg16, got missing \['features\.28\.bias'\], unknown \[\]"):
        FCN8s(3, width=2).load_imagenet(state)
    with pytest.raises(ValueError, match=r"backbone \(width 2; ImageNet weights need 64\), got features\.0\.weight"):
        FCN8s(3, width=2).load_imagenet(torchvision_like(4, torch.zeros))


def test_dropout_in_training_alone() -> None:
    net = FCN8s(3, width=4)
    image = torch.rand(1, 3, 9, 9)
    assert not net.train()(image).equal(net(image))
    assert net.eval()(image).equal(net(image))
