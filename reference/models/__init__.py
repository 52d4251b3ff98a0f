"""The models of the worked example."""

from reference.models.coarse_to_fine import CoarseToFine, Prediction, Stage
from reference.models.crop import Box, Margins, bounding_box, crop, uncrop
from reference.models.deeplab import DeepLab
from reference.models.resnet import ResNet18

__all__ = [
    "Box",
    "CoarseToFine",
    "DeepLab",
    "Margins",
    "Prediction",
    "ResNet18",
    "Stage",
    "bounding_box",
    "crop",
    "uncrop",
]
