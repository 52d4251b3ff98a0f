"""Every loss as a function."""

from multilevel_loss.losses.boundary.boundary import boundary_loss
from multilevel_loss.losses.boundary.boundary_regression import boundary_regression_loss
from multilevel_loss.losses.multilevel import multilevel_loss
from multilevel_loss.losses.multilevel_network import multilevel_network_loss
from multilevel_loss.losses.pixel.uncertain_point import uncertain_point_loss
from multilevel_loss.losses.region.dice import dice_loss

__all__ = [
    "boundary_loss",
    "boundary_regression_loss",
    "dice_loss",
    "multilevel_loss",
    "multilevel_network_loss",
    "uncertain_point_loss",
]
