"""Naive NumPy and SciPy truths of the region losses, of logits x and memberships v (C, *spatial) of one sample."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]
EPSILON = 1e-6


def activate(x: Array, softmax: bool) -> Array:
    if not softmax:
        return 1 / (1 + np.exp(-x))
    e = np.exp(x - x.max(0))
    return e / e.sum(0)


def confusion(p: Array, v: Array) -> tuple[float, float, float, float]:
    return tuple(float(part.sum()) for part in (p * v, p * (1 - v), (1 - p) * v, (1 - p) * (1 - v)))  # type: ignore[return-value]


def dice(p: Array, v: Array, squared: bool = False) -> float:
    power = 2 if squared else 1
    return 1 - (2 * (p * v).sum() + EPSILON) / ((p**power + v**power).sum() + EPSILON)


def iou(p: Array, v: Array) -> float:
    return 1 - ((p * v).sum() + EPSILON) / ((p + v - p * v).sum() + EPSILON)


def tversky(p: Array, v: Array, alpha: float = 0.3, beta: float = 0.7) -> float:
    tp, fp, fn, _ = confusion(p, v)
    return 1 - (tp + EPSILON) / (tp + alpha * fp + beta * fn + EPSILON)


def focal_tversky(p: Array, v: Array, alpha: float = 0.3, beta: float = 0.7, gamma: float = 4 / 3) -> float:
    return tversky(p, v, alpha, beta) ** (1 / gamma)


def asymmetric_similarity(p: Array, v: Array, beta: float = 1.5) -> float:
    tp, fp, fn, _ = confusion(p, v)
    epsilon = EPSILON * (1 + beta**2)
    return 1 - ((1 + beta**2) * tp + epsilon) / ((1 + beta**2) * tp + beta**2 * fn + fp + epsilon)


def log_cosh_dice(p: Array, v: Array) -> float:
    return float(np.log(np.cosh(dice(p, v))))


def matthews_correlation(p: Array, v: Array) -> float:
    tp, fp, fn, tn = confusion(p, v)
    return float(1 - (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))


def generalized_dice(p: Array, v: Array) -> float:
    axes = tuple(range(1, p.ndim))
    volume = v.sum(axes)
    w = np.array([0 if n == 0 else (volume[volume > 0].min() / n) ** 2 for n in volume])
    return 1 - (2 * w @ (p * v).sum(axes) + EPSILON) / (w @ (p + v).sum(axes) + EPSILON)


def penalty(p: Array, v: Array, k: float = 2.5) -> float:
    score = 1 - generalized_dice(p, v)
    return 1 - score / (1 + k * (1 - score))


def lovasz(errors: Array, v: Array) -> float:
    """The extension by its definition: errors in descending order, each times what it adds to the IoU loss of sets."""
    errors, truth = errors.ravel(), set(np.flatnonzero(v))
    wrong: set[int] = set()
    total = before = 0.0
    for voxel in np.argsort(-errors, kind="stable"):
        wrong.add(int(voxel))
        predicted = truth ^ wrong
        union = len(truth | predicted)
        now = 1 - (len(truth & predicted) / union if union else 1)
        total, before = total + errors[voxel] * (now - before), now
    return total


def skeleton(p: Array, iterations: int) -> Array:
    cross = ndimage.generate_binary_structure(p.ndim, 1)
    result = np.zeros_like(p)
    for _ in range(iterations + 1):
        eroded = ndimage.grey_erosion(p, footprint=cross, mode="constant", cval=np.inf)
        opened = ndimage.grey_dilation(eroded, footprint=np.ones((3,) * p.ndim), mode="constant", cval=-np.inf)
        ridge = np.maximum(p - opened, 0)
        result = result + np.maximum(ridge - result * ridge, 0)
        p = eroded
    return result


def cl_dice(p: Array, v: Array, iterations: int = 3) -> float:
    of_p, of_v = skeleton(p, iterations), skeleton(v, iterations)
    precision = ((of_p * v).sum() + EPSILON) / (of_p.sum() + EPSILON)
    sensitivity = ((of_v * p).sum() + EPSILON) / (of_v.sum() + EPSILON)
    return 1 - 2 * precision * sensitivity / (precision + sensitivity)


def cross_entropies(x: Array, v: Array, softmax: bool, gamma: float = 0.0) -> tuple[Array, Array]:
    """Return the focal cross entropy of each voxel and class and its weight in a mean, both of the shape of x."""
    p = activate(x, softmax)
    if softmax:
        return -v * (1 - p) ** gamma * np.log(p), v
    return -v * (1 - p) ** gamma * np.log(p) - (1 - v) * p**gamma * np.log(1 - p), np.ones_like(v)


def topk(x: Array, v: Array, softmax: bool, k: float = 10.0) -> float:
    loss, _ = cross_entropies(x, v, softmax)
    hardness = np.sort((loss.sum(0) if softmax else loss).ravel())[::-1]
    return float(hardness[: max(int(hardness.size * k / 100), 1)].mean())


def nearness(v: Array) -> Array:
    """Return the reversed distance to the inner boundary of a region, 1 there."""
    inside = v > 0.5
    padded = np.pad(inside, 1, constant_values=True)
    contour = inside & ~ndimage.binary_erosion(padded)[(slice(1, -1),) * v.ndim]
    if inside.all() or not inside.any():
        return np.zeros(v.shape)
    distance = ndimage.distance_transform_edt(~contour)
    result = np.ones(v.shape)
    for side in (inside, ~inside):
        farthest = distance[side].max()
        if farthest > 0:
            result[side] = 1 - distance[side] / farthest
    return result


def dpce(x: Array, v: Array, softmax: bool) -> float:
    loss, count = cross_entropies(x, v, softmax)
    weight = np.stack([1 + nearness(of_class) for of_class in v])
    return float((weight * loss).sum() / count.sum())


def generalized_wasserstein_dice(p: Array, v: Array, distances: Array) -> float:
    classes, true, error = len(p), 0.0, 0.0
    flat_p, flat_v = p.reshape(classes, -1), v.reshape(classes, -1)
    for voxel, truth in itertools.product(range(flat_p.shape[1]), range(classes)):
        cost = sum(distances[c, truth] * flat_p[c, voxel] for c in range(classes))
        error += flat_v[truth, voxel] * cost
        true += flat_v[truth, voxel] * (1 - cost) * (truth > 0)
    return 1 - (2 * true + EPSILON) / (2 * true + error + EPSILON)


def unified_focal(
    x: Array, v: Array, softmax: bool, weight: float = 0.5, delta: float = 0.6, gamma: float = 0.5
) -> float:
    p = activate(x, softmax)
    if not softmax:  # a channel is two classes
        return float(
            np.mean(
                [
                    _unified(np.stack([1 - q, q]), np.stack([1 - u, u]), weight, delta, gamma)
                    for q, u in zip(p, v, strict=True)
                ]
            )
        )
    return _unified(p, v, weight, delta, gamma)


def _unified(p: Array, v: Array, weight: float, delta: float, gamma: float) -> float:
    background = -(1 - delta) * v[0] * (1 - p[0]) ** gamma * np.log(p[0])
    structures = -delta * (v[1:] * np.log(p[1:])).sum(0)
    overlap = [tversky(q, u, 1 - delta, delta) for q, u in zip(p, v, strict=True)]
    enhanced = [overlap[0], *(loss ** (1 - gamma) for loss in overlap[1:])]
    return float(weight * (background + structures).mean() + (1 - weight) * np.mean(enhanced))
