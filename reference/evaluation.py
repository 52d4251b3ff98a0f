"""How good a segmentation is: overlap, distances of surfaces, and their summary over cases."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def dice_score(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the Dice similarity coefficient DSC of two masks.

    DSC = 2 |P ∩ V| / (|P| + |V|)

    Args:
        prediction: P, bool, any shape.
        truth: V, bool, of the same shape.

    Returns:
        0 (no voxel in common) to 1 (equal). Two empty masks are equal: 1.

    Raises:
        ValueError: the masks have different shapes or are not bool.

    Example:
        >>> dice_score(np.array([True, True, False]), np.array([False, True, False]))
        0.6666666666666666
    """
    _check_masks(prediction, truth)
    total = int(prediction.sum()) + int(truth.sum())
    return 2 * int((prediction & truth).sum()) / total if total else 1.0


def hausdorff_distance_95(prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    """Return the 95 % Hausdorff distance of two masks: the larger of the two directed 95th percentiles.

    HD95 = max(P₉₅{d(p, ∂V) : p ∈ ∂P}, P₉₅{d(v, ∂P) : v ∈ ∂V})

    ∂ of a mask is its voxels with a face neighbour outside it or outside the image; d is the Euclidean distance
    between voxel centres, as MONAI computes it, in single precision; P₉₅ interpolates linearly between ranks.

    Args:
        prediction: P, bool, one to three axes. An axis of length 1 has no faces: (1, H, W) is measured as an image.
        truth: V, bool, of the same shape.
        spacing: distance between neighbouring voxels along each axis, in mm (or whatever unit the result shall have).

    Returns:
        The distance in the unit of `spacing`, 0 where the masks are equal (both empty, too). Infinity where exactly
        one mask is empty: no finite number would be right; `summarize` counts such cases apart.

    Raises:
        ValueError: the masks have different shapes or are not bool, or `spacing` does not fit them.

    Example:
        >>> truth = np.zeros((1, 8, 8), dtype=bool)
        >>> truth[0, 2:4, 2:4] = True
        >>> hausdorff_distance_95(np.roll(truth, 2, axis=2), truth, spacing=(5.0, 0.5, 1.5))
        3.0
    """
    distances = _surface_distances(prediction, truth, spacing)
    return (
        distances
        if isinstance(distances, float)
        else float(max(np.percentile(distances[0], 95), np.percentile(distances[1], 95)))
    )


def average_surface_distance(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float]
) -> float:
    """Return the average symmetric surface distance of two masks.

    ASD = (Σ_{p ∈ ∂P} d(p, ∂V) + Σ_{v ∈ ∂V} d(v, ∂P)) / (|∂P| + |∂V|)

    Arguments, surfaces, empty masks and errors are those of :func:`hausdorff_distance_95`.

    Example:
        >>> truth = np.array([[True, True, False, False]] * 2)
        >>> average_surface_distance(np.roll(truth, 1, axis=1), truth, spacing=(1.0, 2.0))
        1.0
    """
    distances = _surface_distances(prediction, truth, spacing)
    return distances if isinstance(distances, float) else float(np.concatenate(distances).mean())


def surface_dice(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float], tolerance: float = 1.0
) -> float:
    """Return the normalized surface Dice NSD of two masks: the share of their surfaces that lie close to each other.

    NSD = (|{p ∈ ∂P : d(p, ∂V) ≤ τ}| + |{v ∈ ∂V : d(v, ∂P) ≤ τ}|) / (|∂P| + |∂V|)

    Surface voxels count alike, whatever area they stand for. Arguments, surfaces and errors are those of
    :func:`hausdorff_distance_95`; `tolerance` is τ, in the unit of `spacing`.

    Returns:
        0 to 1 (equal; both empty, too). 0 where exactly one mask is empty.

    Example:
        >>> truth = np.array([[True, True, False, False]] * 2)
        >>> surface_dice(np.roll(truth, 1, axis=1), truth, spacing=(1.0, 2.0))
        0.5
    """
    distances = _surface_distances(prediction, truth, spacing)
    if isinstance(distances, float):
        return float(distances == 0)
    return float((np.concatenate(distances) <= tolerance).mean())


@dataclass(frozen=True)
class Summary:
    """Mean, population standard deviation and extremes of one figure over cases.

    Args:
        mean, sd, min, max: over the finite values; NaN where there is none.
        count: the number of finite values.
        undefined: the number of values that are infinite or NaN and entered none of the above.
    """

    mean: float
    sd: float
    min: float
    max: float
    count: int
    undefined: int


def summarize(values: Iterable[float]) -> Summary:
    """Return the `Summary` of `values`.

    Example:
        >>> summarize([1.0, 3.0, math.inf])
        Summary(mean=2.0, sd=1.0, min=1.0, max=3.0, count=2, undefined=1)
    """
    everything = np.fromiter(values, dtype=np.float64)
    finite = everything[np.isfinite(everything)]
    if not finite.size:
        return Summary(math.nan, math.nan, math.nan, math.nan, 0, everything.size)
    return Summary(
        mean=float(finite.mean()),
        sd=float(finite.std()),
        min=float(finite.min()),
        max=float(finite.max()),
        count=finite.size,
        undefined=everything.size - finite.size,
    )


def _surface_distances(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | float:
    """Return the distances from the surface of each mask to that of the other, or the one they all are."""
    # MONAI takes seconds to import, and most commands measure no surface.
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    _check_masks(prediction, truth)
    if len(spacing) != truth.ndim or not all(math.isfinite(step) and step > 0 for step in spacing):
        raise ValueError(f"expected `spacing` to have {truth.ndim} positive values, got {tuple(spacing)!r}")
    if np.array_equal(prediction, truth):
        return 0.0
    if not (prediction.any() and truth.any()):
        return math.inf
    # Of a CT volume MONAI would need most of its time to find this box.
    around = tuple(slice(axis.min(), axis.max() + 1) for axis in np.nonzero(prediction | truth))
    flat = tuple(axis for axis, length in enumerate(truth.shape) if length == 1)
    # Copies, since a label that is mapped into memory is read-only, of which torch warns.
    edges = get_mask_edges(*(np.array(mask[around]).squeeze(flat) for mask in (prediction, truth)))
    steps = [step for axis, step in enumerate(spacing) if axis not in flat]
    there, back = (get_surface_distance(*pair, spacing=steps) for pair in (edges, edges[::-1]))
    return there, back


def _check_masks(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
    if prediction.shape != truth.shape:
        raise ValueError(
            f"expected `prediction` and `truth` to have one shape, got {prediction.shape} and {truth.shape}"
        )
    if prediction.dtype != np.bool_ or truth.dtype != np.bool_:
        raise ValueError(f"expected `prediction` and `truth` to be bool, got {prediction.dtype} and {truth.dtype}")
