"""Every loss as a function."""

from multilevel_loss.losses.boundary.active_boundary import active_boundary_loss
from multilevel_loss.losses.boundary.boundary import boundary_loss
from multilevel_loss.losses.boundary.boundary_regression import boundary_regression_loss
from multilevel_loss.losses.boundary.contour_dice import contour_dice_loss
from multilevel_loss.losses.boundary.elastic_interaction import elastic_interaction_loss
from multilevel_loss.losses.boundary.hausdorff_cv import hausdorff_cv_loss
from multilevel_loss.losses.boundary.hausdorff_dt import hausdorff_dt_loss
from multilevel_loss.losses.boundary.hausdorff_er import hausdorff_er_loss
from multilevel_loss.losses.boundary.sdf_regression import sdf_regression_loss
from multilevel_loss.losses.compound.active_contour import active_contour_loss
from multilevel_loss.losses.compound.ce_ce import ce_ce_loss
from multilevel_loss.losses.compound.chan_vese import chan_vese_loss
from multilevel_loss.losses.compound.dice_ce import dice_ce_loss
from multilevel_loss.losses.compound.dice_focal import dice_focal_loss
from multilevel_loss.losses.compound.dice_sdf import dice_sdf_loss
from multilevel_loss.losses.compound.geodesic_active_contour import geodesic_active_contour_loss
from multilevel_loss.losses.compound.geometrically_constrained import geometrically_constrained_loss
from multilevel_loss.losses.compound.level_set import level_set_loss
from multilevel_loss.losses.compound.mumford_shah import mumford_shah_loss
from multilevel_loss.losses.compound.nested_level_set import nested_level_set_loss
from multilevel_loss.losses.compound.unified_focal import unified_focal_loss
from multilevel_loss.losses.multilevel import multilevel_loss
from multilevel_loss.losses.multilevel_network import multilevel_network_loss
from multilevel_loss.losses.pixel.uncertain_point import uncertain_point_loss
from multilevel_loss.losses.region.asymmetric_similarity import asymmetric_similarity_loss
from multilevel_loss.losses.region.cl_dice import cl_dice_loss, soft_skeleton
from multilevel_loss.losses.region.cross_entropy import cross_entropy_loss, unet_weight_map
from multilevel_loss.losses.region.dice import dice_loss
from multilevel_loss.losses.region.dpce import dpce_loss
from multilevel_loss.losses.region.focal import focal_loss
from multilevel_loss.losses.region.focal_tversky import focal_tversky_loss
from multilevel_loss.losses.region.generalized_dice import generalized_dice_loss
from multilevel_loss.losses.region.generalized_wasserstein_dice import generalized_wasserstein_dice_loss
from multilevel_loss.losses.region.iou import iou_loss
from multilevel_loss.losses.region.log_cosh_dice import log_cosh_dice_loss
from multilevel_loss.losses.region.lovasz import lovasz_loss
from multilevel_loss.losses.region.matthews_correlation import matthews_correlation_loss
from multilevel_loss.losses.region.penalty import penalty_loss
from multilevel_loss.losses.region.topk import topk_loss
from multilevel_loss.losses.region.tversky import tversky_loss

__all__ = [
    "active_boundary_loss",
    "active_contour_loss",
    "asymmetric_similarity_loss",
    "boundary_loss",
    "boundary_regression_loss",
    "ce_ce_loss",
    "chan_vese_loss",
    "cl_dice_loss",
    "contour_dice_loss",
    "cross_entropy_loss",
    "dice_ce_loss",
    "dice_focal_loss",
    "dice_loss",
    "dice_sdf_loss",
    "dpce_loss",
    "elastic_interaction_loss",
    "focal_loss",
    "focal_tversky_loss",
    "generalized_dice_loss",
    "generalized_wasserstein_dice_loss",
    "geodesic_active_contour_loss",
    "geometrically_constrained_loss",
    "hausdorff_cv_loss",
    "hausdorff_dt_loss",
    "hausdorff_er_loss",
    "iou_loss",
    "level_set_loss",
    "log_cosh_dice_loss",
    "lovasz_loss",
    "matthews_correlation_loss",
    "multilevel_loss",
    "multilevel_network_loss",
    "mumford_shah_loss",
    "nested_level_set_loss",
    "penalty_loss",
    "sdf_regression_loss",
    "soft_skeleton",
    "topk_loss",
    "tversky_loss",
    "uncertain_point_loss",
    "unet_weight_map",
    "unified_focal_loss",
]
