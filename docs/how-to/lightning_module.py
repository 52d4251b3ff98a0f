"""A LightningModule with the multi-level loss: its schedules follow the trainer's epoch, its terms are logged."""

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from multilevel_loss import BoundaryLoss, DiceLoss, LinearRamp, MLLoss, StepAt


class SmallOrgan(L.LightningModule):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        # A module of the module: moved with it, and its epoch saved in the checkpoint.
        self.loss = MLLoss(
            region=DiceLoss(batch=True),
            boundary=BoundaryLoss(normalize="max", offset="optimal"),
            alpha=LinearRamp(0, 1, step=0.2),
            beta=StepAt(4),
            return_components=True,
        )

    def on_train_epoch_start(self) -> None:
        self.loss.set_epoch(self.current_epoch)

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        images, labels = batch
        total, terms = self.loss(self.network(images), labels)
        self.log_dict({f"train/{name}": term for name, term in terms.items()}, on_step=False, on_epoch=True)
        return total

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        images, labels = batch
        predicted = self.network(images)[:, 0] > 0
        dice = 2 * (predicted & (labels == 1)).sum() / (predicted.sum() + labels.sum())
        self.log("val/dice", dice, batch_size=len(images))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def made_images(count: int) -> TensorDataset:
    """Return noisy images (1, 48, 48) of a disc of about 50 pixels, and label maps (48, 48)."""
    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    center = torch.randint(8, 40, (2, count, 1, 1))
    labels = (rows - center[0]) ** 2 + (columns - center[1]) ** 2 <= 16
    return TensorDataset(labels[:, None] + 0.7 * torch.randn(count, 1, 48, 48), labels.long())


def main() -> None:
    L.seed_everything(0, verbose=False)
    training, unseen = DataLoader(made_images(64), batch_size=8, shuffle=True), DataLoader(made_images(32), 32)
    model = SmallOrgan(
        nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 1, 1)
        )
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=8,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    before = trainer.validate(model, unseen, verbose=False)[0]["val/dice"]
    trainer.fit(model, training, unseen)
    print({name: round(weight, 1) for name, weight in model.loss.weights.items()})
    print(f"DSC {before:.2f} → {trainer.callback_metrics['val/dice']:.2f}")


if __name__ == "__main__":
    main()
