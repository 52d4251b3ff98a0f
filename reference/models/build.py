"""The models by name: the paper's two, their variants, and the network that they are compared with."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

from multilevel_loss._checks import check_choice
from reference.models.coarse_to_fine import CoarseToFine
from reference.models.deeplab import Classifier, DeepLab
from reference.models.fcn import FCN8s
from reference.models.multilevel_network import FusionModule, MultiLevelNetwork, PixelModule, Regressor

ModelName = Literal["mll", "mln", "rstn"]


def build_model(
    name: ModelName,
    *,
    width: int = 64,
    conv1_stride: int = 1,
    max_pool: bool = True,
    num_points: int = 2048,
    pixel_module: PixelModule = "transformer",
    fusion_module: FusionModule = "guidance",
    generator: torch.Generator | None = None,
) -> CoarseToFine:
    """Return the model of one view, at random weights.

    Args:
        name: "mll" for the model that the multi-level loss trains, 30,631,038 parameters at its width; "mln" for the
            multi-level structural network, 36.0 million; "rstn" for the recurrent saliency transformation network, a
            pair of FCN-8s, 268.6 million, which no option but `width` concerns.
        width: channels of the first block of both backbones. 64, the paper's, is the one that ImageNet weights fit; a
            narrower model trains on a CPU.
        conv1_stride: stride of the fine model's first convolution, 1 or 2; the coarse one's is 2.
        max_pool: whether the fine model's first block is preceded by max-pooling. With `conv1_stride` it chooses a row
            of Table 2; see :class:`ResNet18`.
        num_points: uncertain points that the MLN's pixel branch takes.
        pixel_module: the MLN's "transformer", or four "mlps" (Table 9).
        fusion_module: the MLN's saliency "guidance", or four "convolutions" (Table 9).
        generator: source of the initial weights; torch's own when None.

    Returns:
        A model whose `config` holds all of these but `generator`: ``build_model(**model.config)`` has the same layers.

    Raises:
        ValueError: an option is none of the above.

    Example:
        >>> model = build_model("mln", width=4, num_points=256)
        >>> model(torch.rand(1, 3, 64, 80)).branches.pixel.shape
        torch.Size([1, 3, 256])
    """
    check_choice("name", name, get_args(ModelName))
    check_choice("pixel_module", pixel_module, get_args(PixelModule))
    check_choice("fusion_module", fusion_module, get_args(FusionModule))
    if conv1_stride not in (1, 2):
        raise ValueError(f"expected `conv1_stride` to be 1 or 2, got {conv1_stride!r}")
    coarse: DeepLab | FCN8s
    fine: DeepLab | MultiLevelNetwork | FCN8s
    coarse = FCN8s(3, width=width) if name == "rstn" else DeepLab(3, 3, width=width)
    if name == "rstn":
        fine = FCN8s(3, width=width)
    elif name == "mll":
        fine = DeepLab(6, 3, width=width, conv1_stride=conv1_stride, max_pool=max_pool)
    else:
        fine = MultiLevelNetwork(
            6,
            3,
            width=width,
            conv1_stride=conv1_stride,
            max_pool=max_pool,
            num_points=num_points,
            pixel_module=pixel_module,
            fusion_module=fusion_module,
        )
    config: dict[str, str | int | bool] = {
        "name": name,
        "width": width,
        "conv1_stride": conv1_stride,
        "max_pool": max_pool,
        "num_points": num_points,
        "pixel_module": pixel_module,
        "fusion_module": fusion_module,
    }
    model = CoarseToFine(coarse, fine, config)
    initialize(model, generator)
    return model


def initialize(model: CoarseToFine, generator: torch.Generator | None) -> None:
    """Draw the weights: Kaiming's for layers that a ReLU follows, others as their classes say."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, Classifier):
            nn.init.normal_(module.weight, std=0.01, generator=generator)
        elif isinstance(module, Regressor):
            nn.init.normal_(module.weight, std=module.in_channels**-0.5, generator=generator)
    for name, parameter in model.saliency.named_parameters():
        if name.endswith("bias"):
            nn.init.ones_(parameter)
        else:
            nn.init.normal_(parameter, std=0.01, generator=generator)
