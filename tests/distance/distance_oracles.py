"""Signed distances by SciPy, for images too large for brute force."""

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from multilevel_loss.distance import _naive


def by_scipy(inside: Tensor, spacing: Tensor | None, inner: bool) -> Tensor:
    maps = np.zeros(inside.shape)
    for n, mask in enumerate(inside):
        if mask.any() and not mask.all():
            sampling = None if spacing is None else spacing[n].tolist()
            surface = _naive.inner_boundary(mask) if inner else mask
            outside = distance_transform_edt(~surface.numpy(), sampling=sampling)
            within = outside if inner else distance_transform_edt(mask.numpy(), sampling=sampling)
            maps[n] = np.where(mask, 0 - within, outside)
    return torch.from_numpy(maps).float()


def masks(shape: tuple[int, ...]) -> dict[str, Tensor]:
    axes = torch.meshgrid([torch.linspace(-1, 1, size) for size in shape[1:]], indexing="ij")
    radius = sum((axis - 0.3) ** 2 for axis in axes).sqrt().expand(shape)
    return {
        "noise": torch.rand(shape) < 0.5,
        "dust": torch.rand(shape) < 1e-3,
        "holes": torch.rand(shape) > 1e-3,
        "organ": radius < 0.2,
        "large": radius < 0.9,
        "shell": (radius - 0.5).abs() < 0.1,
    }
