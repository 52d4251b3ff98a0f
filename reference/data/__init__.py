"""Reading cases, splitting them by patient, and cutting them into units of three slices."""

from reference.data.case import Case, percentile_window, resize_slices, scale_intensities
from reference.data.images2d import read_image_folder
from reference.data.nifti import read_nifti_folder
from reference.data.phantom import make_phantom
from reference.data.scan import Geometry, Scan, read_scan, write_like
from reference.data.splits import Split, folds, paper_folds, split_by_patient
from reference.data.store import read_store
from reference.data.units import SliceUnits, Unit, neighbor_slices

__all__ = [
    "Case",
    "Geometry",
    "Scan",
    "SliceUnits",
    "Split",
    "Unit",
    "folds",
    "make_phantom",
    "neighbor_slices",
    "paper_folds",
    "percentile_window",
    "read_image_folder",
    "read_nifti_folder",
    "read_scan",
    "read_store",
    "resize_slices",
    "scale_intensities",
    "split_by_patient",
    "write_like",
]
