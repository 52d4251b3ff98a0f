"""Naive NumPy and SciPy truths of the boundary losses, one class of one sample at a time, of probabilities p."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]


def two_sided_distance(region: Array, spacing: tuple[float, ...] | None, side: str) -> Array:
    inside = region > 0.5
    if inside.all() or not inside.any():
        return np.zeros(region.shape)
    distance = ndimage.distance_transform_edt(inside, sampling=spacing)
    return distance if side == "inside" else distance + ndimage.distance_transform_edt(~inside, sampling=spacing)


def hausdorff_dt(
    p: Array, v: Array, alpha: float = 2, side: str = "both", spacing: tuple[float, ...] | None = None
) -> float:
    d_p, d_v = (two_sided_distance(region, spacing, side) for region in (p, v))
    return float(((p - v) ** 2 * (d_p**alpha + d_v**alpha)).mean())


def hausdorff_er(p: Array, v: Array, alpha: float = 2, erosions: int = 10) -> float:
    cross = ndimage.generate_binary_structure(p.ndim, 1).astype(float)
    error, total = (p - v) ** 2, 0.0
    for k in range(1, erosions + 1):
        error = np.maximum(ndimage.convolve(error, cross / cross.sum(), mode="constant") - 0.5, 0)
        if np.ptp(error) > 1e-3:
            error = (error - error.min()) / np.ptp(error)
        total += k**alpha * error.mean()
    return total


def hausdorff_cv(p: Array, v: Array, alpha: float = 2, radii: tuple[float, ...] = (3, 6, 9, 12, 15, 18)) -> float:
    voxels = np.argwhere(np.ones(p.shape))
    total = 0.0
    for here in map(tuple, voxels):
        distance = np.linalg.norm(voxels - here, axis=1)
        for radius in radii:
            ball = tuple(voxels[distance <= radius].T)
            p_r, v_r = p[ball].mean(), v[ball].mean()
            missed = max(1 - 2 * p_r, 0) + max(2 * v_r - 1, 0)
            false = max(2 * p_r - 1, 0) + max(1 - 2 * v_r, 0)
            total += radius**alpha * (p[here] - v[here]) ** 2 * (v[here] * missed + p[here] * false)
    return total / p.size


def sdf_regression(y_hat: Array, phi: Array, penalty: str = "l1+product") -> float:
    y = -phi
    if penalty == "mse":
        return float(((y_hat - y) ** 2).mean())
    loss = np.abs(y_hat - y).mean()
    if penalty == "l1+product":
        loss += 1 / 3 - (y * y_hat).sum() / ((y * y_hat).sum() + (y**2).sum() + (y_hat**2).sum())
    return float(loss)


def elastic_interaction(p: Array, v: Array, alpha: float = 0.35, spacing: tuple[float, ...] | None = None) -> float:
    # The ½ of the paper is kept here, where the library leaves it out.
    energy = np.abs(np.fft.fftn(alpha * (p - 0.5) - (v - 0.5))) ** 2
    steps = spacing or (1.0,) * p.ndim
    axes = [np.fft.fftfreq(side, d=step) for side, step in zip(p.shape, steps, strict=True)]
    frequency = np.sqrt(sum(k**2 for k in np.meshgrid(*axes, indexing="ij")))
    return float((frequency * energy).sum() / p.size**2)


def inner_boundary(x: Array) -> Array:
    cross = ndimage.generate_binary_structure(x.ndim, 1)
    return x - ndimage.minimum_filter(x, footprint=cross, mode="nearest")


def contour_dice(p: Array, v: Array, tolerance: int = 1) -> float:
    of_p, of_v = inner_boundary(p), inner_boundary(v)
    near_p, near_v = (ndimage.maximum_filter(x, 2 * tolerance + 1, mode="nearest") for x in (of_p, of_v))
    lengths = of_p.sum() + of_v.sum()
    return float(1 - ((of_p * near_v).sum() + (of_v * near_p).sum()) / lengths)


def slopes(x: Array, spacing: tuple[float, ...] | None, epsilon: float) -> Array:
    """Return √(|∇x|² + ε) of each cell of 2 voxels along each axis: the means of its opposite faces, subtracted."""
    steps = spacing or (1.0,) * x.ndim
    cells = np.empty([side - 1 for side in x.shape])
    for corner in np.ndindex(*cells.shape):
        cell = x[tuple(slice(start, start + 2) for start in corner)]
        change = [np.diff(cell, axis=axis).mean() / step for axis, step in enumerate(steps)]
        cells[corner] = np.sqrt(np.square(change).sum() + epsilon)
    return cells


def misfit(image: Array, region: Array) -> float:
    """Return the mean of y·|x − c|² for an image (K, *spatial)."""
    mean = (image * region).reshape(len(image), -1).sum(1) / region.sum()
    distance = ((image - mean.reshape(-1, *[1] * region.ndim)) ** 2).sum(0)
    return float((region * distance).mean())


def active_contour(p: Array, v: Array, region_weight: float = 1.0, spacing: tuple[float, ...] | None = None) -> float:
    region = (p * (1 - v) ** 2 + (1 - p) * v**2).mean()
    return float(slopes(p, spacing, 1e-8).mean() + region_weight * region)


def chan_vese(
    p: Array, image: Array, mu: float = 0.1, nu: float = 0.0, lambda_inside: float = 1.0, lambda_outside: float = 1.0
) -> float:
    energy = mu * slopes(p, None, 1e-8).mean() + nu * p.mean()
    return float(energy + lambda_inside * misfit(image, p) + lambda_outside * misfit(image, 1 - p))


def geodesic_active_contour(p: Array, image: Array, sigma: float = 1.0, kappa: float = 1.0) -> float:
    smooth = [ndimage.gaussian_filter(x, sigma, mode="nearest", radius=int(np.ceil(3 * sigma))) for x in image]
    edges = sum(slopes(x, None, 0.0) ** 2 for x in smooth)
    return float((slopes(p, None, 1e-8) / (1 + edges / kappa**2)).mean())


def geometry(p: Array, v: Array, spacing: tuple[float, ...] | None = None) -> float:
    steps = np.array(spacing or (1.0,) * p.ndim)
    places = np.argwhere(np.ones(p.shape)) * steps

    def moments(region: Array) -> tuple[float, Array, Array]:
        share = region.ravel() / region.sum()
        centre = share @ places
        offsets = places - centre
        return float(region.sum()), centre, (share[:, None] * offsets).T @ offsets + np.diag(steps**2 / 12)

    (size_p, at_p, spread_p), (size_v, at_v, spread_v) = moments(p), moments(v)
    distance = ((at_p - at_v) ** 2).sum()
    terms = [
        (size_p - size_v) ** 2 / (size_p + size_v) ** 2,
        distance / (distance + np.trace(spread_p) + np.trace(spread_v)),
        ((spread_p - spread_v) ** 2).sum() / ((spread_p**2).sum() + (spread_v**2).sum()),
    ]
    return float(np.mean(terms))


def level_set(p: Array, v: Array, epsilon: float = 1 / 32) -> float:
    inside = (1 + np.tanh((p - 0.5) / epsilon)) / 2
    return misfit(v[None], inside) + misfit(v[None], 1 - inside)


def boundary_cross_entropy(q: Array, v: Array, balanced: bool) -> float:
    edge = inner_boundary(v)
    off = (1 - edge).mean()
    on, beside = (off, 1 - off) if balanced else (1.0, 1.0)
    return float(-(on * edge * np.log(q) + beside * (1 - edge) * np.log(1 - q)).mean())


def active_boundary(
    p: Array, labels: Array, share: float = 0.01, theta: float = 20.0, label_smoothing: float = 0.2
) -> float:
    """Return the loss of probabilities (K, *spatial) against labels."""
    grid = labels.shape
    voxels = list(np.ndindex(*grid))
    strength, edge = np.zeros(grid), np.zeros(grid, dtype=bool)
    for here in voxels:
        for axis, step in product(range(len(grid)), (-1, 1)):
            there = tuple(x + step * (i == axis) for i, x in enumerate(here))
            if all(0 <= x < side for x, side in zip(there, grid, strict=True)):
                a, b = p[(slice(None), *here)], p[(slice(None), *there)]
                strength[here] += ((b - a) * np.log(b / a)).sum()
                edge[here] |= labels[here] != labels[there]
    if not edge.any():
        return 0.0
    distance = ndimage.distance_transform_edt(~edge)
    chosen = sorted(voxels, key=lambda voxel: -strength[voxel])[: int(np.ceil(share * len(voxels)))]
    total = 0.0
    for here in chosen:
        near = [tuple(np.add(here, offset)) for offset in product((-1, 0, 1), repeat=len(grid)) if any(offset)]
        near = [there for there in near if all(0 <= x < side for x, side in zip(there, grid, strict=True))]
        a = p[(slice(None), *here)]
        divergence = np.array([(a * np.log(a / p[(slice(None), *there)])).sum() for there in near])
        log_direction = divergence - np.log(np.exp(divergence).sum())
        ahead = np.array([distance[there] for there in near])
        nearest = ahead == ahead.min()
        truth = (1 - label_smoothing) * nearest / nearest.sum() + label_smoothing / len(near)
        total -= min(distance[here] / theta, 1) * (truth * log_direction).sum()
    return total / len(chosen)
