"""Trainers for nnU-Net v2, which finds them by name: ``nnUNetv2_train ... -tr nnUNetTrainerMLL``."""

from __future__ import annotations

from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from multilevel_loss import BoundaryLoss, DiceCELoss, DiceLoss, LinearRamp, MLLoss, StepAt
from multilevel_loss._module import Loss
from multilevel_loss.nnunet import LevelLoss


class nnUNetTrainerMLL(nnUNetTrainer):  # type: ignore[misc]  # noqa: N801
    """nnU-Net's training with the multi-level loss: Dice, boundary and uncertain points.

    Patches, augmentation, deep supervision and whether Dice is taken of a sample or a batch are nnU-Net's; regions and
    the ignore label are respected. The weights follow the paper's schedules, of 20 epochs, stretched to those of this
    training.
    """

    def _build_loss(self) -> nn.Module:
        regions, ignored = self.label_manager.has_regions, self.label_manager.ignore_label
        self.multilevel_loss = MLLoss(
            region=self._region_loss(),
            boundary=BoundaryLoss(normalize="max", offset="optimal"),
            alpha=LinearRamp(0, 1, step=4 / self.num_epochs),
            beta=StepAt(round(0.6 * self.num_epochs)),
            mode="multilabel" if regions else "multiclass",
            ignore_index=None if regions else ignored,
        )
        loss = LevelLoss(
            self.multilevel_loss,
            self.configuration_manager.spacing,
            self.configuration_manager.patch_size,
            ignored_channel=regions and ignored is not None,
        )
        if not self.enable_deep_supervision:
            return loss
        levels: nn.Module = super()._build_loss()  # weighed as nnU-Net weighs them
        levels.loss = loss
        return levels

    def _region_loss(self) -> Loss[...]:
        return DiceLoss(**self._dice_options())

    def _dice_options(self) -> dict[str, Any]:
        batch = self.configuration_manager.batch_dice
        return {"batch": batch, "sync": batch and self.is_ddp, "smooth_nr": 0.0, "smooth_dr": 1e-5, "empty": "skip"}

    def on_train_epoch_start(self) -> None:
        """Start the epoch, in which the terms weigh as the log tells."""
        super().on_train_epoch_start()
        self.multilevel_loss.set_epoch(self.current_epoch)
        weights = ", ".join(f"{name} {weight:.3g}" for name, weight in self.multilevel_loss.weights.items())
        self.print_to_log_file(f"Weights of the loss: {weights}")


class nnUNetTrainerMLLCE(nnUNetTrainerMLL):  # noqa: N801
    """The same with Dice and cross entropy, which nnU-Net trains with, as the region term."""

    def _region_loss(self) -> Loss[...]:
        return DiceCELoss(**self._dice_options())
