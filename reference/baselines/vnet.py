"""V-Net: MONAI's network, trained on patches of volumes and slid over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from monai.inferers import sliding_window_inference
from monai.networks.nets import VNet
from monai.transforms import Compose, RandCropByPosNegLabeld, SpatialPadd, generate_spatial_bounding_box
from numpy.typing import NDArray
from torch import nn

from multilevel_loss import DiceLoss
from reference.data import Case

PATCH_SIZE = (64, 128, 128)
"""Voxels of a patch along D, H, W: the paper's 128×128×64."""

VolumeBox = tuple[slice, slice, slice]


@dataclass(frozen=True)
class VNetConfig:
    """How V-Net is trained; the paper gives the size of the patches and no more.

    Args:
        steps: updates of the weights.
        batch_size: patches an update, all of one volume, half of them around the organ.
        patch_size: voxels of a patch along D, H, W; multiples of 16.
        learning_rate: Adam's.
        seed: of the first weights, the volumes, the patches and the dropout.
        accelerator: as Fabric names it: "auto", "cpu", "cuda", ...
        precision: as Fabric names it.
    """

    steps: int = 20_000
    batch_size: int = 2
    patch_size: tuple[int, int, int] = PATCH_SIZE
    learning_rate: float = 1e-4
    seed: int = 0
    accelerator: str = "auto"
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"


def vnet() -> nn.Module:
    """Return MONAI's V-Net, from volumes (B, 1, D, H, W) to logits of that shape, at weights of torch's own generator.

    Source: Milletari et al., V-Net, 3DV 2016. MONAI's has 45.6 million parameters, where the paper counts 19 million.
    """
    network: nn.Module = VNet(spatial_dims=3, in_channels=1, out_channels=1)
    return network


def label_box(label: NDArray[np.bool_], margin: int = 20) -> VolumeBox:
    """Return the box of a label (D, H, W), grown by `margin` voxels and clipped: where Table 8 has V-Net look.

    Raises:
        ValueError: the label is empty.
    """
    if not label.any():
        raise ValueError("expected `label` to hold at least one voxel, got none")
    start, stop = generate_spatial_bounding_box(label[None], margin=margin, allow_smaller=True)
    depth, height, width = (slice(int(first), int(last)) for first, last in zip(start, stop, strict=True))
    return depth, height, width


def train_vnet(cases: Sequence[Case], config: VNetConfig) -> tuple[nn.Module, list[float]]:
    """Train a V-Net on the boxes of the labels, by the Dice loss of its authors.

    Args:
        cases: volumes to train on, each with some organ.
        config: how.

    Returns:
        The network, in eval mode, on the device that it was trained on; the loss of every step.

    Raises:
        ValueError: no cases, or one without organ.
    """
    if not cases:
        raise ValueError("expected `cases` to hold at least one case, got none")
    boxes = [label_box(case.label) for case in cases]
    keys = ("image", "label")
    patches = Compose(
        [
            SpatialPadd(keys, config.patch_size),
            RandCropByPosNegLabeld(keys, "label", config.patch_size, pos=1, neg=1, num_samples=config.batch_size),
        ]
    ).set_random_state(config.seed)
    loss = DiceLoss(squared=True)
    fabric = Fabric(accelerator=config.accelerator, devices=1, precision=config.precision)
    losses = []
    with torch.random.fork_rng([fabric.device] if fabric.device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        model = vnet()
        network, optimizer = fabric.setup(model, torch.optim.Adam(model.parameters(), config.learning_rate))
        for number in torch.randint(len(cases), (config.steps,)).tolist():
            case, box = cases[number], boxes[number]
            drawn = patches({"image": case.intensities(box)[None], "label": case.label[box][None].astype(np.uint8)})
            image, label = (torch.stack([patch[key].as_tensor() for patch in drawn]).to(fabric.device) for key in keys)
            optimizer.zero_grad()
            value = loss(network(image), label)
            fabric.backward(value)
            optimizer.step()
            losses.append(value.detach())
    return model.eval(), torch.stack(losses).tolist()


@torch.inference_mode()
def segment_vnet(
    model: nn.Module,
    image: NDArray[np.float32],
    *,
    box: VolumeBox | None = None,
    patch_size: tuple[int, int, int] = PATCH_SIZE,
) -> NDArray[np.float32]:
    """Return the probability (D, H, W) of the organ, patches that half overlap averaged with Gaussian weights.

    Args:
        model: of :func:`train_vnet`.
        image: (D, H, W) in [0, 1].
        box: where to look; 0 elsewhere. Table 8's is the :func:`label_box`. None looks everywhere.
        patch_size: voxels of a patch along D, H, W; multiples of 16.
    """
    box = box or (slice(None), slice(None), slice(None))
    device = next(model.parameters()).device
    volume = torch.from_numpy(np.ascontiguousarray(image[box])).to(device)
    logits = sliding_window_inference(volume[None, None], patch_size, 1, model, overlap=0.5, mode="gaussian")
    probability = np.zeros(image.shape, np.float32)
    probability[box] = logits[0, 0].sigmoid().numpy(force=True)
    return probability
