"""ImageNet weights of torchvision's networks: from its servers, a file or a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

Weights = Mapping[str, Tensor] | str | Path | None
"""A state dict, the path of a file that holds one, or None for the one that torchvision publishes."""

URLS = {
    "resnet18": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
}


def read_weights(network: str, weights: Weights) -> dict[str, Tensor]:
    """Return the state dict of torchvision's `network`; downloaded once, into torch.hub's cache, when None."""
    if isinstance(weights, Mapping):
        return dict(weights)
    if weights is None:
        return torch.hub.load_state_dict_from_url(URLS[network], map_location="cpu", check_hash=True, weights_only=True)
    state: dict[str, Tensor] = torch.load(weights, map_location="cpu", weights_only=True)
    return state


def repeat_input_channels(weight: Tensor, in_channels: int) -> Tensor:
    """Return the weight of a first convolution for more channels, such that copies of one image give its features."""
    repeats, rest = divmod(in_channels, weight.shape[1])
    return weight.repeat(1, repeats, 1, 1) / repeats if rest == 0 else weight


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], network: str, width: int) -> None:
    """Load `state` into `module`, which must have its names and shapes.

    Raises:
        ValueError: if a weight is missing, unknown or of another shape, as it is when `width` is not 64.
    """
    own = module.state_dict()
    if state.keys() != own.keys():
        raise ValueError(
            f"expected `weights` to name the parameters of torchvision's {network}, "
            f"got missing {sorted(own.keys() - state.keys())[:3]}, unknown {sorted(state.keys() - own.keys())[:3]}"
        )
    for name, value in state.items():
        if value.shape != own[name].shape:
            raise ValueError(
                f"expected `weights` to fit this backbone (width {width}; ImageNet weights need 64), "
                f"got {name} of shape {tuple(value.shape)} instead of {tuple(own[name].shape)}"
            )
    module.load_state_dict(state)
