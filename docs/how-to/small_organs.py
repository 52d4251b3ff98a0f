"""Compare weightings of the multi-level loss on small organs: python small_organs.py [FOLDER] [--seeds N] [--epochs N].

FOLDER holds imagesTr/ and labelsTr/ as in the Medical Segmentation Decathlon, whose label 2 is the organ; without it
the volumes are made. Each weighting trains the same small network on 24 volumes and is tested on 12 others, per seed.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from monai.metrics import compute_dice, compute_hausdorff_distance
from monai.networks.nets import UNet
from monai.transforms import Compose, EnsureTyped, LoadImaged, NormalizeIntensityd, ResizeWithPadOrCropd
from torch import Tensor

from multilevel_loss import PAPER_MLL, BoundaryLoss, MLLoss

TRAINED, TESTED = 24, 12
WEIGHTINGS: dict[str, Callable[[], MLLoss]] = {
    "Dice alone": lambda: MLLoss(alpha=0, beta=0),
    "Dice and points": lambda: MLLoss(alpha=0),
    "distances in voxels": lambda: MLLoss(boundary=BoundaryLoss()),
    "in voxels, α = 0.01": lambda: MLLoss(boundary=BoundaryLoss(), alpha=0.01),
    "in voxels, clip=5": lambda: MLLoss(boundary=BoundaryLoss(clip=5.0)),
    "in voxels, the paper's schedules": lambda: MLLoss(boundary=BoundaryLoss(), **PAPER_MLL),
    "MLLoss()": MLLoss,
    "MLLoss(), the paper's schedules": lambda: MLLoss(**PAPER_MLL),
}


def made_volumes(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return noisy images of an ellipsoid of some 180 voxels among four balls of 19, and label maps."""
    size = (32, 40, 40)
    grid = torch.stack(torch.meshgrid(*map(torch.arange, size), indexing="ij"))

    def somewhere(margin: int) -> Tensor:
        return torch.stack([torch.randint(margin, side - margin, (1, 1, 1), generator=generator) for side in size])

    images, labels = [], []
    for _ in range(TRAINED + TESTED):
        radii = 2.5 + 2 * torch.rand(3, 1, 1, 1, generator=generator)
        label = (((grid - somewhere(6)) / radii) ** 2).sum(0) <= 1
        image = label.clone()
        for _ in range(4):
            image |= ((grid - somewhere(3)) ** 2).sum(0) <= 4
        images.append(image + 0.6 * torch.randn(size, generator=generator))
        labels.append(label)
    return torch.stack(images).unsqueeze(1), torch.stack(labels).unsqueeze(1).long()


def read_volumes(folder: Path) -> tuple[Tensor, Tensor]:
    keys = ["image", "label"]
    read = Compose(
        [
            LoadImaged(keys, ensure_channel_first=True),
            NormalizeIntensityd("image"),
            ResizeWithPadOrCropd(keys, (40, 56, 40)),
            EnsureTyped(keys, track_meta=False),
        ]
    )
    files = sorted((folder / "labelsTr").glob("*.nii.gz"))[: TRAINED + TESTED]
    volumes = [read({"image": folder / "imagesTr" / label.name, "label": label}) for label in files]
    labels = torch.stack([volume["label"] for volume in volumes]).round()
    return torch.stack([volume["image"] for volume in volumes]), (labels == 2).long()


def train_and_test(loss: MLLoss, images: Tensor, labels: Tensor, seed: int, epochs: int) -> tuple[Tensor, Tensor]:
    """Return DSC and HD95 in voxels of each tested volume; the HD95 of an empty prediction is infinite."""
    torch.manual_seed(seed)
    order = torch.randperm(len(images))
    network = UNet(3, in_channels=1, out_channels=1, channels=(8, 16, 32), strides=(2, 2))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for epoch in range(epochs):
        loss.set_epoch(epoch)
        for chosen in order[TESTED:][torch.randperm(len(order) - TESTED)].split(2):
            optimizer.zero_grad()
            loss(network(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    tested = order[:TESTED]
    with torch.no_grad():
        predicted, truth = (network(images[tested]) > 0).float(), labels[tested].float()
    distances = compute_hausdorff_distance(predicted, truth, include_background=True, percentile=95)
    return compute_dice(predicted, truth)[:, 0], distances[:, 0].nan_to_num(torch.inf)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    for name, make in WEIGHTINGS.items():
        scores = []
        for seed in range(given.seeds):
            volumes = read_volumes(given.folder) if given.folder else made_volumes(torch.Generator().manual_seed(seed))
            scores.append(train_and_test(make(), *volumes, seed, given.epochs))
        dsc, hd95 = (torch.stack(each) for each in zip(*scores, strict=True))
        means = " ".join(f"{mean:.3f}" for mean in dsc.mean(1))
        print(f"{name}: DSC {means}, HD95 {hd95.median():.1f}, empty {int(hd95.isinf().sum())} of {hd95.numel()}")


if __name__ == "__main__":
    main()
