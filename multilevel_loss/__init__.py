"""Region, boundary and uncertain-point losses for segmenting small structures, with exact signed distance maps."""

from multilevel_loss import functional
from multilevel_loss.distance import distance_map, signed_distance_map
from multilevel_loss.losses.boundary.boundary import BoundaryLoss
from multilevel_loss.losses.boundary.boundary_regression import BoundaryRegressionLoss
from multilevel_loss.losses.boundary.contour_dice import ContourDiceLoss
from multilevel_loss.losses.boundary.elastic_interaction import ElasticInteractionLoss
from multilevel_loss.losses.boundary.hausdorff_cv import HausdorffCVLoss
from multilevel_loss.losses.boundary.hausdorff_dt import HausdorffDTLoss
from multilevel_loss.losses.boundary.hausdorff_er import HausdorffERLoss
from multilevel_loss.losses.boundary.sdf_regression import SDFRegressionLoss
from multilevel_loss.losses.compound.active_contour import ActiveContourLoss
from multilevel_loss.losses.compound.chan_vese import ChanVeseLoss
from multilevel_loss.losses.compound.combined import CombinedLoss
from multilevel_loss.losses.compound.geodesic_active_contour import GeodesicActiveContourLoss
from multilevel_loss.losses.compound.geometrically_constrained import GeometricallyConstrainedLoss
from multilevel_loss.losses.compound.mumford_shah import MumfordShahLoss
from multilevel_loss.losses.deep_supervision import DeepSupervision
from multilevel_loss.losses.multilevel import MLLoss
from multilevel_loss.losses.multilevel_network import MLNLoss
from multilevel_loss.losses.pixel.uncertain_point import UncertainPointLoss
from multilevel_loss.losses.region.dice import DiceLoss
from multilevel_loss.points import sample_points, uncertain_grid_points, uncertain_points
from multilevel_loss.schedules import PAPER_MLL, PAPER_MLN, LinearRamp, StepAt

__all__ = [
    "PAPER_MLL",
    "PAPER_MLN",
    "ActiveContourLoss",
    "BoundaryLoss",
    "BoundaryRegressionLoss",
    "ChanVeseLoss",
    "CombinedLoss",
    "ContourDiceLoss",
    "DeepSupervision",
    "DiceLoss",
    "ElasticInteractionLoss",
    "GeodesicActiveContourLoss",
    "GeometricallyConstrainedLoss",
    "HausdorffCVLoss",
    "HausdorffDTLoss",
    "HausdorffERLoss",
    "LinearRamp",
    "MLLoss",
    "MLNLoss",
    "MumfordShahLoss",
    "SDFRegressionLoss",
    "StepAt",
    "UncertainPointLoss",
    "distance_map",
    "functional",
    "sample_points",
    "signed_distance_map",
    "uncertain_grid_points",
    "uncertain_points",
]
