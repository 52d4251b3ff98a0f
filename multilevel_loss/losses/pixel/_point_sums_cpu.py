"""The sums of `_point_sums` on the CPU: numba kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multilevel_loss._numba import compiled, divided, run
from multilevel_loss._points_cpu import (
    BLOCK,
    PER_POINT,
    arrays,
    flags,
    hide,
    interpolate,
    neighbours,
    room_for_neighbours,
)
from multilevel_loss.losses.region._voxel_sums_cpu import (
    collect,
    entropies,
    fill,
    log_all,
    sigmoid_entropies,
    total_of,
    write_softmax,
)

_Reals = NDArray[np.float32]
_Integers = NDArray[np.int64]
_ZERO, _ONE = np.float32(0), np.float32(1)
_NO_LABELS, _NO_REALS = np.empty((0, 0, 0), np.uint8), np.empty((0, 0, 0), np.float32)
_kernel = compiled()


def sums(
    logits: Tensor, truth: Tensor, mask: Tensor | None, point_coords: Tensor, softmax: bool
) -> tuple[Tensor, Tensor, NDArray[np.float32], NDArray[np.float32]]:
    """Return the fields of `PointSums`, and probabilities and memberships (B, C, P), 0 for points that do not count.

    Args:
        logits: (B, C, *spatial), float32.
        truth: label map (B, 1, *spatial'), any integer or bool dtype, or memberships (B, C, *spatial') of any dtype.
        mask: (B, 1, *spatial') bool, True where a voxel counts; None where all do.
        point_coords: (B, P, D) in [0, 1], x first.
        softmax: whether the classes exclude each other.
    """
    values, points, sizes = arrays(logits, point_coords)
    labels, memberships = _NO_LABELS, _NO_REALS
    flat = truth.flatten(2).contiguous()
    if truth.is_floating_point() or truth.shape[1] > 1:
        memberships = flat.float().numpy()
    else:
        labels = (flat.view(torch.uint8) if truth.dtype == torch.bool else flat).numpy()
    batch, channels, count = *logits.shape[:2], points.shape[1]
    p, v = np.empty((2, batch, channels, count), np.float32)
    blocks = -(-count // BLOCK)
    of_blocks = np.empty((2, batch * blocks, channels))
    result = torch.empty(2, batch, channels, dtype=torch.float32)
    given = values, labels, memberships, flags(mask), points, sizes, np.array(truth.shape[2:]), softmax
    run(_forward, batch * blocks, 2 * p.size * PER_POINT, *given, p, v, of_blocks)
    collect(of_blocks, 0, result.numpy())
    entropy, weight = result.unbind()
    return entropy, weight, p, v


def add_gradient(
    by_entropy: Tensor, p: _Reals, v: _Reals, mask: Tensor | None, point_coords: Tensor, softmax: bool, out: Tensor
) -> None:
    """Add to the contiguous gradient of the logits that of the cross entropies; `mask` is one of the logits."""
    values, points, sizes = arrays(out, point_coords)
    # In one thread a sample, for points share cells.
    given = by_entropy.contiguous().numpy(), p, v, flags(mask), points, sizes, softmax
    run(_backward, len(p), p.size * PER_POINT, *given, values)


@_kernel
def _add_cells(labels: NDArray[Any], label: int, index: _Integers, share: _Reals, out: _Reals) -> None:
    for p in range(out.size):
        out[p] += share[p] if labels[index[p]] == label else _ZERO


@_kernel
def _members(labels: NDArray[Any], label: int, index: _Integers, share: _Reals, count: int, out: _Reals) -> None:
    """Write the share of the `count` cells around each point that have a label."""
    fill(_ZERO, out)
    for k in range(count):
        _add_cells(labels, label, index[k], share[k], out)


@_kernel
def _forward(
    threads: int, first: int, last: int,
    values: _Reals, labels: NDArray[Any], truth: _Reals, mask: NDArray[np.bool_],
    coords: _Reals, sizes: _Integers, truth_sizes: _Integers, softmax: bool,
    p: _Reals, v: _Reals, sums: NDArray[np.float64],
) -> None:  # fmt: skip
    """Write probabilities, memberships and sums of blocks `first` to `last` of points."""
    if divided(threads, first, last):
        return
    channels, blocks = p.shape[1], (p.shape[2] + BLOCK - 1) // BLOCK
    index, share = room_for_neighbours()
    x, scratch = np.empty((1, channels, BLOCK), np.float32), np.empty((4, BLOCK), np.float32)
    fill(_ONE, scratch[0])
    fill(_ONE, scratch[3])
    same_grid = True
    for axis in range(sizes.size):
        same_grid = same_grid and sizes[axis] == truth_sizes[axis]
    for block in range(first, last):
        b, start = block // blocks, block % blocks * BLOCK
        stop = min(start + BLOCK, p.shape[2])
        n = stop - start
        ones, greatest, total, counted = scratch[0, :n], scratch[1, :n], scratch[2, :n], scratch[3, :n]
        count = neighbours(coords[b, start:stop], sizes, index, share)
        if mask.size and same_grid:
            hide(mask[b], count, index[:, :n], share[:, :n])
        for c in range(channels):
            interpolate(values[b, c], index, share, count, x[0, c, :n])
        if not same_grid:
            count = neighbours(coords[b, start:stop], truth_sizes, index, share)
            if mask.size:
                hide(mask[b], count, index[:, :n], share[:, :n])
        for c in range(channels):
            if labels.size:
                _members(labels[b, 0], c if channels > 1 else 1, index, share, count, v[b, c, start:stop])
            else:
                interpolate(truth[b, c], index, share, count, v[b, c, start:stop])
        if mask.size:
            _count(mask[b], coords[b, start:stop], truth_sizes, counted)
        if softmax:
            write_softmax(x, 0, 0, p, b, start, greatest, total)
            log_all(total)
        for c in range(channels):
            at, of_class = x[0, c, :n], v[b, c, start:stop]
            if softmax:
                if mask.size:
                    _scale(counted, of_class)
                sums[0, block, c], _ = entropies(of_class, ones, at, greatest, total, ones, ones)
                sums[1, block, c] = total_of(of_class)
            else:
                _, _, _, positive, negative = sigmoid_entropies(at, of_class, counted, p[b, c, start:stop])
                sums[0, block, c], sums[1, block, c] = positive + negative, total_of(counted)
                if mask.size:
                    _scale(counted, of_class)
                    _scale(counted, p[b, c, start:stop])


@_kernel
def _scale(factor: _Reals, out: _Reals) -> None:
    for p in range(out.size):
        out[p] *= factor[p]


@_kernel
def _count(mask: NDArray[np.bool_], coords: _Reals, sizes: _Integers, out: _Reals) -> None:
    """Write 1 for points that lie in a voxel of a mask, and 0 for others."""
    for p in range(out.size):
        voxel = 0
        for axis in range(sizes.size):
            size = sizes[axis]
            x = coords[p, sizes.size - 1 - axis] * np.float32(size)
            x = x if x > _ZERO else _ZERO  # which takes NaN along
            voxel = voxel * size + np.int64(min(x, np.float32(size - 1)))
        out[p] = _ONE if mask[voxel] else _ZERO


@_kernel
def _scatter(slope: _Reals, index: _Integers, share: _Reals, out: _Reals) -> None:
    for p in range(slope.size):
        out[index[p]] += share[p] * slope[p]


@_kernel
def _backward(
    threads: int, first: int, last: int,
    by: _Reals, p: _Reals, v: _Reals, mask: NDArray[np.bool_], coords: _Reals, sizes: _Integers, softmax: bool,
    out: _Reals,
) -> None:  # fmt: skip
    """Add the gradient of samples `first` to `last` of the batch."""
    if divided(threads, first, last):
        return
    index, share = room_for_neighbours()
    total, slope = np.empty((2, BLOCK), np.float32)
    for b in range(first, last):
        for start in range(0, coords.shape[1], BLOCK):
            block_coords = coords[b, start : start + BLOCK]
            count = neighbours(block_coords, sizes, index, share)
            if mask.size:
                hide(mask[b], count, index[:, : len(block_coords)], share[:, : len(block_coords)])
            fill(_ZERO, total)
            for c in range(out.shape[1] if softmax else 0):
                for j in range(len(block_coords)):
                    total[j] += by[b, c] * v[b, c, start + j]
            for c in range(out.shape[1]):
                for j in range(len(block_coords)):
                    by_p = total[j] if softmax else by[b, c]
                    slope[j] = by_p * p[b, c, start + j] - by[b, c] * v[b, c, start + j]
                for k in range(count):
                    _scatter(slope[: len(block_coords)], index[k], share[k], out[b, c])
