"""Every loss as a function."""

from multilevel_loss.losses.boundary.boundary import boundary_loss
from multilevel_loss.losses.boundary.boundary_regression import boundary_regression_loss
from multilevel_loss.losses.boundary.contour_dice import contour_dice_loss
from multilevel_loss.losses.boundary.elastic_interaction import elastic_interaction_loss
from multilevel_loss.losses.boundary.hausdorff_cv import hausdorff_cv_loss
from multilevel_loss.losses.boundary.hausdorff_dt import hausdorff_dt_loss
from multilevel_loss.losses.boundary.hausdorff_er import hausdorff_er_loss
from multilevel_loss.losses.boundary.sdf_regression import sdf_regression_loss
from multilevel_loss.losses.multilevel import multilevel_loss
from multilevel_loss.losses.multilevel_network import multilevel_network_loss
from multilevel_loss.losses.pixel.uncertain_point import uncertain_point_loss
from multilevel_loss.losses.region.dice import dice_loss

__all__ = [
    "boundary_loss",
    "boundary_regression_loss",
    "contour_dice_loss",
    "dice_loss",
    "elastic_interaction_loss",
    "hausdorff_cv_loss",
    "hausdorff_dt_loss",
    "hausdorff_er_loss",
    "multilevel_loss",
    "multilevel_network_loss",
    "sdf_regression_loss",
    "uncertain_point_loss",
]
