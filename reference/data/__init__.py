"""Reading cases, splitting them by patient, and cutting them into units of three slices."""

from .case import Case, resize_slices, scale_intensities
from .images2d import read_image_folder
from .nifti import read_nifti_folder
from .phantom import make_phantom
from .splits import Split, split_by_patient
from .units import SliceUnits, Unit, neighbor_slices

__all__ = [
    "Case",
    "SliceUnits",
    "Split",
    "Unit",
    "make_phantom",
    "neighbor_slices",
    "read_image_folder",
    "read_nifti_folder",
    "resize_slices",
    "scale_intensities",
    "split_by_patient",
]
