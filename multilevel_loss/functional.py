"""Every loss as a function."""

from multilevel_loss.losses.boundary.boundary import boundary_loss
from multilevel_loss.losses.boundary.boundary_regression import boundary_regression_loss
from multilevel_loss.losses.boundary.contour_dice import contour_dice_loss
from multilevel_loss.losses.boundary.elastic_interaction import elastic_interaction_loss
from multilevel_loss.losses.boundary.hausdorff_cv import hausdorff_cv_loss
from multilevel_loss.losses.boundary.hausdorff_dt import hausdorff_dt_loss
from multilevel_loss.losses.boundary.hausdorff_er import hausdorff_er_loss
from multilevel_loss.losses.boundary.sdf_regression import sdf_regression_loss
from multilevel_loss.losses.compound.active_contour import active_contour_loss
from multilevel_loss.losses.compound.chan_vese import chan_vese_loss
from multilevel_loss.losses.compound.geodesic_active_contour import geodesic_active_contour_loss
from multilevel_loss.losses.compound.geometrically_constrained import geometrically_constrained_loss
from multilevel_loss.losses.compound.mumford_shah import mumford_shah_loss
from multilevel_loss.losses.multilevel import multilevel_loss
from multilevel_loss.losses.multilevel_network import multilevel_network_loss
from multilevel_loss.losses.pixel.uncertain_point import uncertain_point_loss
from multilevel_loss.losses.region.dice import dice_loss

__all__ = [
    "active_contour_loss",
    "boundary_loss",
    "boundary_regression_loss",
    "chan_vese_loss",
    "contour_dice_loss",
    "dice_loss",
    "elastic_interaction_loss",
    "geodesic_active_contour_loss",
    "geometrically_constrained_loss",
    "hausdorff_cv_loss",
    "hausdorff_dt_loss",
    "hausdorff_er_loss",
    "multilevel_loss",
    "multilevel_network_loss",
    "mumford_shah_loss",
    "sdf_regression_loss",
    "uncertain_point_loss",
]
