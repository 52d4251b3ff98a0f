"""Train a U-Net of segmentation-models-pytorch with the multi-level loss, on made images."""

import segmentation_models_pytorch as smp
import torch
from torch import Tensor

from multilevel_loss import BoundaryLoss, DiceLoss, LinearRamp, MLLoss, StepAt


def made_images(count: int) -> tuple[Tensor, Tensor]:
    """Return noisy images (B, 1, 64, 64) of a disc of about 50 pixels, and label maps (B, 64, 64)."""
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    center = torch.randint(8, 56, (2, count, 1, 1))
    labels = (rows - center[0]) ** 2 + (columns - center[1]) ** 2 <= 16
    return labels[:, None] + 0.7 * torch.randn(count, 1, 64, 64), labels.long()


def main() -> None:
    torch.manual_seed(0)
    images, labels = made_images(64)
    unseen, truth = made_images(32)
    network = smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=1, activation=None)
    loss = MLLoss(
        region=DiceLoss(batch=True),
        boundary=BoundaryLoss(normalize="max", offset="optimal"),
        alpha=LinearRamp(0, 1, step=0.2),
        beta=StepAt(4),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    @torch.no_grad()
    def dice_score() -> float:
        network.eval()
        counts = smp.metrics.get_stats(network(unseen).sigmoid(), truth[:, None], mode="binary", threshold=0.5)
        return smp.metrics.f1_score(*counts, reduction="micro").item()

    before = dice_score()
    for epoch in range(8):
        network.train()
        loss.set_epoch(epoch)
        for chosen in torch.randperm(len(images)).split(8):
            optimizer.zero_grad()
            total = loss(network(images[chosen]), labels[chosen])
            total.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss of the last batch {total.item():.3f}")
    print(f"DSC {before:.2f} → {dice_score():.2f}")


if __name__ == "__main__":
    main()
