"""Region, boundary and uncertain-point losses for segmenting small structures, with exact signed distance maps."""

from multilevel_loss import functional
from multilevel_loss.distance import distance_map, signed_distance_map
from multilevel_loss.losses.boundary.active_boundary import ActiveBoundaryLoss
from multilevel_loss.losses.boundary.boundary import BoundaryLoss
from multilevel_loss.losses.boundary.boundary_regression import BoundaryRegressionLoss
from multilevel_loss.losses.boundary.contour_dice import ContourDiceLoss
from multilevel_loss.losses.boundary.elastic_interaction import ElasticInteractionLoss
from multilevel_loss.losses.boundary.hausdorff_cv import HausdorffCVLoss
from multilevel_loss.losses.boundary.hausdorff_dt import HausdorffDTLoss
from multilevel_loss.losses.boundary.hausdorff_er import HausdorffERLoss
from multilevel_loss.losses.boundary.sdf_regression import SDFRegressionLoss
from multilevel_loss.losses.compound.active_contour import ActiveContourLoss
from multilevel_loss.losses.compound.ce_ce import CECELoss
from multilevel_loss.losses.compound.chan_vese import ChanVeseLoss
from multilevel_loss.losses.compound.combined import CombinedLoss
from multilevel_loss.losses.compound.dice_ce import DiceCELoss
from multilevel_loss.losses.compound.dice_focal import DiceFocalLoss
from multilevel_loss.losses.compound.dice_sdf import DiceSDFLoss
from multilevel_loss.losses.compound.geodesic_active_contour import GeodesicActiveContourLoss
from multilevel_loss.losses.compound.geometrically_constrained import GeometricallyConstrainedLoss
from multilevel_loss.losses.compound.level_set import LevelSetLoss
from multilevel_loss.losses.compound.mumford_shah import MumfordShahLoss
from multilevel_loss.losses.compound.nested_level_set import NestedLevelSetLoss
from multilevel_loss.losses.compound.unified_focal import UnifiedFocalLoss
from multilevel_loss.losses.deep_supervision import DeepSupervision
from multilevel_loss.losses.multilevel import MLLoss
from multilevel_loss.losses.multilevel_network import MLNLoss
from multilevel_loss.losses.pixel.uncertain_point import UncertainPointLoss
from multilevel_loss.losses.region.asymmetric_similarity import AsymmetricSimilarityLoss
from multilevel_loss.losses.region.cl_dice import ClDiceLoss
from multilevel_loss.losses.region.cross_entropy import CrossEntropyLoss
from multilevel_loss.losses.region.dice import DiceLoss
from multilevel_loss.losses.region.dpce import DPCELoss
from multilevel_loss.losses.region.focal import FocalLoss
from multilevel_loss.losses.region.focal_tversky import FocalTverskyLoss
from multilevel_loss.losses.region.generalized_dice import GeneralizedDiceLoss
from multilevel_loss.losses.region.generalized_wasserstein_dice import GeneralizedWassersteinDiceLoss
from multilevel_loss.losses.region.iou import IoULoss
from multilevel_loss.losses.region.log_cosh_dice import LogCoshDiceLoss
from multilevel_loss.losses.region.lovasz import LovaszLoss
from multilevel_loss.losses.region.matthews_correlation import MatthewsCorrelationLoss
from multilevel_loss.losses.region.penalty import PenaltyLoss
from multilevel_loss.losses.region.topk import TopKLoss
from multilevel_loss.losses.region.tversky import TverskyLoss
from multilevel_loss.points import sample_points, uncertain_grid_points, uncertain_points
from multilevel_loss.schedules import PAPER_MLL, PAPER_MLN, LinearRamp, StepAt

__all__ = [
    "PAPER_MLL",
    "PAPER_MLN",
    "ActiveBoundaryLoss",
    "ActiveContourLoss",
    "AsymmetricSimilarityLoss",
    "BoundaryLoss",
    "BoundaryRegressionLoss",
    "CECELoss",
    "ChanVeseLoss",
    "ClDiceLoss",
    "CombinedLoss",
    "ContourDiceLoss",
    "CrossEntropyLoss",
    "DPCELoss",
    "DeepSupervision",
    "DiceCELoss",
    "DiceFocalLoss",
    "DiceLoss",
    "DiceSDFLoss",
    "ElasticInteractionLoss",
    "FocalLoss",
    "FocalTverskyLoss",
    "GeneralizedDiceLoss",
    "GeneralizedWassersteinDiceLoss",
    "GeodesicActiveContourLoss",
    "GeometricallyConstrainedLoss",
    "HausdorffCVLoss",
    "HausdorffDTLoss",
    "HausdorffERLoss",
    "IoULoss",
    "LevelSetLoss",
    "LinearRamp",
    "LogCoshDiceLoss",
    "LovaszLoss",
    "MLLoss",
    "MLNLoss",
    "MatthewsCorrelationLoss",
    "MumfordShahLoss",
    "NestedLevelSetLoss",
    "PenaltyLoss",
    "SDFRegressionLoss",
    "StepAt",
    "TopKLoss",
    "TverskyLoss",
    "UncertainPointLoss",
    "UnifiedFocalLoss",
    "distance_map",
    "functional",
    "sample_points",
    "signed_distance_map",
    "uncertain_grid_points",
    "uncertain_points",
]
