"""Region, boundary and uncertain-point losses for segmenting small structures, with exact signed distance maps."""

from multilevel_loss import functional
from multilevel_loss.distance import distance_map, signed_distance_map
from multilevel_loss.losses.boundary.boundary import BoundaryLoss
from multilevel_loss.losses.boundary.boundary_regression import BoundaryRegressionLoss
from multilevel_loss.losses.multilevel import MLLoss
from multilevel_loss.losses.multilevel_network import MLNLoss
from multilevel_loss.losses.pixel.uncertain_point import UncertainPointLoss
from multilevel_loss.losses.region.dice import DiceLoss
from multilevel_loss.points import sample_points, uncertain_grid_points, uncertain_points
from multilevel_loss.schedules import PAPER_MLL, PAPER_MLN, LinearRamp, StepAt

__all__ = [
    "PAPER_MLL",
    "PAPER_MLN",
    "BoundaryLoss",
    "BoundaryRegressionLoss",
    "DiceLoss",
    "LinearRamp",
    "MLLoss",
    "MLNLoss",
    "StepAt",
    "UncertainPointLoss",
    "distance_map",
    "functional",
    "sample_points",
    "signed_distance_map",
    "uncertain_grid_points",
    "uncertain_points",
]
