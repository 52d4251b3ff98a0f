"""Segment two small structures in volumes with MONAI's U-Net: python monai_volumes.py [FOLDER].

FOLDER holds imagesTr/ and labelsTr/ as in the Medical Segmentation Decathlon, of three classes; without it the volumes
are made.
"""

import sys
from functools import partial
from pathlib import Path

import torch
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.metrics import DiceMetric
from monai.networks.nets import UNet
from monai.networks.utils import one_hot
from monai.transforms import Compose, LoadImaged, NormalizeIntensityd, RandFlipd, ResizeWithPadOrCropd

from multilevel_loss import BoundaryLoss, DiceLoss, LinearRamp, MLLoss, signed_distance_map
from multilevel_loss.distance import SignedDistanceMapd

CLASSES = 3
KEYS = ["image", "label"]
SIZE = (40, 56, 40)


def read_volumes(folder: Path, count: int) -> list[dict[str, MetaTensor]]:
    load = LoadImaged(KEYS, ensure_channel_first=True)
    labels = sorted((folder / "labelsTr").glob("*.nii.gz"))[:count]
    return [load({"image": folder / "imagesTr" / label.name, "label": label}) for label in labels]


def made_volumes(count: int) -> list[dict[str, MetaTensor]]:
    """Return noisy volumes of two balls that touch, of about 500 voxels each, at 1 mm."""
    grid = torch.stack(torch.meshgrid(*map(torch.arange, SIZE), indexing="ij"))
    volumes = []
    for _ in range(count):
        center = torch.stack([torch.randint(12, side - 20, (1, 1, 1)) for side in SIZE])
        first, second = (((grid - center - shift) ** 2).sum(0, keepdim=True) <= 25 for shift in (0, 5))
        label = torch.where(first, 1, torch.where(second, 2, 0))
        volumes.append({"image": MetaTensor(label + 0.5 * torch.randn(label.shape)), "label": MetaTensor(label)})
    return volumes


def main() -> None:
    torch.manual_seed(0)
    volumes = read_volumes(Path(sys.argv[1]), 16) if len(sys.argv) > 1 else made_volumes(16)
    transform = Compose(
        [
            NormalizeIntensityd("image"),
            ResizeWithPadOrCropd(KEYS, SIZE),
            # After what resamples or pads, before what flips or crops: the map of a flipped label is the flipped map.
            SignedDistanceMapd("label", partial(signed_distance_map, num_classes=CLASSES), spacing_key="label"),
            RandFlipd([*KEYS, "label_distance_map"], prob=0.5, spatial_axis=0),
        ]
    ).set_random_state(0)
    # What comes before the random transforms is computed once, the maps among it.
    loader = DataLoader(CacheDataset(volumes[:12], transform, progress=False), batch_size=2, shuffle=True)
    unseen = DataLoader(CacheDataset(volumes[12:], transform, progress=False), batch_size=2)

    network = UNet(3, in_channels=1, out_channels=CLASSES, channels=(8, 16, 32), strides=(2, 2))
    loss = MLLoss(
        region=DiceLoss(batch=True, smooth_nr=0.0),
        boundary=BoundaryLoss(offset="optimal"),
        alpha=LinearRamp(0, 0.1, step=0.02),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)

    @torch.no_grad()
    def dice_score() -> float:
        score = DiceMetric(include_background=False)
        for batch in unseen:
            predicted = network(batch["image"]).argmax(1, keepdim=True)
            score(one_hot(predicted, CLASSES), one_hot(batch["label"], CLASSES))
        return score.aggregate().item()

    before = dice_score()
    for epoch in range(8):
        loss.set_epoch(epoch)
        for batch in loader:
            optimizer.zero_grad()
            total = loss(network(batch["image"]), batch["label"].long(), distance_map=batch["label_distance_map"])
            total.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss of the last batch {total.item():.3f}")
    print(f"DSC {before:.2f} → {dice_score():.2f}")


if __name__ == "__main__":
    main()
