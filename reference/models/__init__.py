"""The models of the worked example."""

from reference.models.branches import Branches
from reference.models.build import ModelName, build_model
from reference.models.coarse_to_fine import CoarseToFine, Prediction, Stage
from reference.models.crop import Box, Margins, bounding_box, crop, inside, uncrop
from reference.models.deeplab import DeepLab
from reference.models.fcn import FCN8s
from reference.models.multilevel_network import FusionModule, MultiLevelNetwork, PixelModule
from reference.models.resnet import ResNet18

__all__ = [
    "Box",
    "Branches",
    "CoarseToFine",
    "DeepLab",
    "FCN8s",
    "FusionModule",
    "Margins",
    "ModelName",
    "MultiLevelNetwork",
    "PixelModule",
    "Prediction",
    "ResNet18",
    "Stage",
    "bounding_box",
    "build_model",
    "crop",
    "inside",
    "uncrop",
]
