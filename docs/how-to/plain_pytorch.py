"""Train a small network on made images with the multi-level loss, stop, and go on where it stopped."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from multilevel_loss import BoundaryLoss, DiceLoss, LinearRamp, MLLoss, StepAt


def made_images(count: int) -> tuple[Tensor, Tensor]:
    """Return noisy images (B, 1, 48, 48) of a disc of about 50 pixels, and label maps (B, 48, 48)."""
    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    center = torch.randint(8, 40, (2, count, 1, 1))
    labels = (rows - center[0]) ** 2 + (columns - center[1]) ** 2 <= 16
    return labels[:, None] + 0.7 * torch.randn(count, 1, 48, 48), labels.long()


def dice_score(logits: Tensor, labels: Tensor) -> float:
    """Return the Dice score of the thresholded prediction."""
    predicted = logits[:, 0] > 0
    return (2 * (predicted & (labels == 1)).sum() / (predicted.sum() + labels.sum())).item()


def train(checkpoint: Path, epochs: int, images: Tensor, labels: Tensor) -> nn.Module:
    """Train up to an epoch, from the checkpoint if there is one."""
    network = nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 1, 1)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    loss = MLLoss(
        region=DiceLoss(batch=True),
        boundary=BoundaryLoss(normalize="max", offset="optimal"),
        alpha=LinearRamp(0, 1, step=0.2),
        beta=StepAt(4),
        return_components=True,
    )
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        loss.load_state_dict(state["loss"])  # holds the epoch that the schedules are at
        first = loss.epoch + 1

    for epoch in range(first, epochs):
        loss.set_epoch(epoch)
        for chosen in torch.randperm(len(images)).split(8):
            total, terms = loss(network(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
        values = ", ".join(f"{loss.weights[name]:.1f} × {name} {term.item():.3f}" for name, term in terms.items())
        print(f"epoch {epoch}: {values}")
        torch.save(
            {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "loss": loss.state_dict()},
            checkpoint,
        )
    return network


def main() -> None:
    torch.manual_seed(0)
    images, labels = made_images(64)
    unseen, truth = made_images(32)
    with TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "last.pt"
        before = dice_score(train(checkpoint, 0, images, labels)(unseen), truth)
        train(checkpoint, 3, images, labels)
        network = train(checkpoint, 8, images, labels)  # goes on at epoch 3
    print(f"DSC {before:.2f} → {dice_score(network(unseen), truth):.2f}")


if __name__ == "__main__":
    main()
