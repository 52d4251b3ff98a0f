"""Sampling at points on the CPU: numba kernels that do in one pass what takes torch some thirty operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multilevel_loss._numba import compiled, divided, run

BLOCK = 256  # points
PER_POINT = 24  # elements of the distance maps that take as long, for which threads are counted
_ROW = 32  # voxels among which the one of a rank is looked for one by one

_Reals = NDArray[np.float32]
_Integers = NDArray[np.int64]
_NO_FLAGS = np.empty((0, 0), np.bool_)
_ZERO, _HALF, _ONE, _INFINITY = (np.float32(value) for value in (0, 0.5, 1, np.inf))
_kernel = compiled()


def move_into(mask: Tensor, draw: Tensor, points: Tensor) -> None:
    """Move points (B, P, D), uniform in [0, 1), into the ⌊draw·N⌋-th of the N voxels of a mask (B, 1, *spatial).

    In a sample without one they stay.
    """
    batch, count, axes = points.shape
    sizes = np.array(mask.shape[2:])
    run(_move, batch, batch * count * axes * PER_POINT, flags(mask), draw.numpy(), sizes, points.numpy())


def keep_uncertain(
    field: Tensor, mask: Tensor | None, drawn: Tensor, candidates: int, kept: int, softmax: bool
) -> Tensor:
    """Return drawn points (B, P, D), of the first `candidates` in each sample the `kept` most uncertain alone."""
    values, points, sizes = arrays(field, drawn)
    batch, total, axes = points.shape
    keys = np.empty((batch, candidates), np.int32)
    work = keys.size * PER_POINT
    blocks = batch * -(-candidates // BLOCK)
    run(_rank, blocks, work * values.shape[1], values, flags(mask), points, sizes, softmax, keys)
    result = torch.empty(batch, total - candidates + kept, axes, dtype=torch.float32)
    run(_keep, batch, work, keys, points, kept, result.numpy())
    return result


def arrays(field: Tensor, point_coords: Tensor) -> tuple[NDArray[Any], _Reals, _Integers]:
    """Return values (B, C, N), coordinates and the sides of the grid."""
    values = field.detach().contiguous().numpy().reshape(*field.shape[:2], -1)
    return values, point_coords.contiguous().numpy(), np.array(field.shape[2:])


def flags(mask: Tensor | None) -> NDArray[np.bool_]:
    """Return a mask (B, 1, *spatial) as (B, N), empty for None."""
    return _NO_FLAGS if mask is None else mask.contiguous().numpy().reshape(len(mask), -1)


@_kernel
def _total(mask: NDArray[np.bool_]) -> int:
    total = 0
    for voxel in range(mask.size):
        total += mask[voxel]
    return total


@_kernel
def _move(
    threads: int, first: int, last: int,
    mask: NDArray[np.bool_], draw: NDArray[np.float64], sizes: _Integers, points: _Reals,
) -> None:  # fmt: skip
    """Move the points of samples `first` to `last`: the voxel of a rank is looked for by rows, then in its row."""
    if divided(threads, first, last):
        return
    rows = (mask.shape[1] + _ROW - 1) // _ROW
    before = np.zeros(rows + 1, np.int64)
    for b in range(first, last):
        for row in range(rows):
            before[row + 1] = before[row] + _total(mask[b, row * _ROW : min((row + 1) * _ROW, mask.shape[1])])
        total = before[rows]
        for p in range(points.shape[1] if total > 0 else 0):
            rank = min(np.int64(draw[b, p] * total), total - 1)
            row, end = 0, rows
            while end - row > 1:
                middle = (row + end) // 2
                row, end = (middle, end) if before[middle] <= rank else (row, middle)
            voxel, left = row * _ROW, rank - before[row]
            while left > 0 or not mask[b, voxel]:
                left -= mask[b, voxel]
                voxel += 1
            for axis in range(sizes.size):
                size = sizes[sizes.size - 1 - axis]
                points[b, p, axis] = (np.float32(voxel % size) + points[b, p, axis]) / np.float32(size)
                voxel //= size


@_kernel
def _split(position: NDArray[Any], size: int, below: NDArray[Any], fraction: _Reals) -> None:
    """Write the cell before each coordinate in [0, 1] and how far it is on its way to the next."""
    last = np.float32(size - 1)
    for p in range(position.size):
        x = position[p] * np.float32(size) - _HALF
        x = x if x > _ZERO else _ZERO  # which takes NaN along
        x = x if x < last else last
        below[p] = np.int64(x)
        fraction[p] = x - np.float32(below[p])


@_kernel
def _double(
    size: int,
    below: _Integers,
    fraction: _Reals,
    index: _Integers,
    share: _Reals,
    next_index: _Integers,
    next_share: _Reals,
) -> None:
    """Divide each cell, with its share, in two along one more axis."""
    for p in range(index.size):
        above = min(below[p] + 1, size - 1)
        next_index[p], next_share[p] = index[p] * size + above, share[p] * fraction[p]
        index[p], share[p] = index[p] * size + below[p], share[p] * (_ONE - fraction[p])


@_kernel
def room_for_neighbours() -> tuple[_Integers, _Reals]:
    """Return `index` and `share` for :func:`neighbours` of a block: a row for each of 8 cells, and some to work in."""
    return np.empty((9, BLOCK), np.int64), np.empty((10, BLOCK), np.float32)


@_kernel
def neighbours(coords: _Reals, sizes: _Integers, index: _Integers, share: _Reals) -> int:
    """Write the flat indices (K, P) and the shares of the cells around points (P, D) and return K."""
    points = len(coords)
    for p in range(points):
        index[0, p], share[0, p] = 0, _ONE
    below, place, fraction = index[8], share[8, :points], share[9]
    count = 1
    for axis in range(sizes.size):
        size = sizes[axis]
        for p in range(points):
            place[p] = coords[p, sizes.size - 1 - axis]
        _split(place, size, below, fraction)  # in place, no vector instruction would be safe
        for k in range(count):
            _double(size, below, fraction, index[k, :points], share[k], index[count + k], share[count + k])
        count *= 2
    return count


@_kernel
def hide(mask: NDArray[np.bool_], count: int, index: _Integers, share: _Reals) -> None:
    """Leave the cells outside a mask without a share of the points around them; the others take it, if any do."""
    total, known = share[8], index[8]
    for p in range(total.size):
        total[p], known[p] = _ZERO, index[0, p]
    for k in range(count):
        for p in range(total.size):
            inside = mask[index[k, p]]
            share[k, p] = share[k, p] if inside else _ZERO
            total[p] += share[k, p]
            known[p] = index[k, p] if inside else known[p]
    for k in range(count):
        for p in range(total.size):
            share[k, p] = share[k, p] / total[p] if total[p] > _ZERO else _ZERO
            # No value is read that does not count: it may be NaN.
            index[k, p] = index[k, p] if mask[index[k, p]] else known[p]


# A loop that does nothing but read the field: so the processor waits for many cells at once, anywhere in memory.
@_kernel
def _add_cells(field: _Reals, index: _Integers, share: _Reals, out: _Reals) -> None:
    for p in range(out.size):
        out[p] += field[index[p]] * share[p]


@_kernel
def interpolate(field: _Reals, index: _Integers, share: _Reals, count: int, out: _Reals) -> None:
    """Write the mean of a field over the `count` cells around each point by their shares."""
    for p in range(out.size):
        out[p] = _ZERO
    for k in range(count):
        _add_cells(field, index[k], share[k], out)


@_kernel
def _least(x: _Reals, least: _Reals) -> None:
    """Let the absolute values of one more class take part in the least; NaN stays."""
    for p in range(least.size):
        size = abs(x[p])
        least[p] = size if size < least[p] or size != size else least[p]


@_kernel
def _two_largest(x: _Reals, largest: _Reals, second: _Reals) -> None:
    """Let one more class take part in the two largest; NaN stays."""
    for p in range(largest.size):
        second[p] = max(second[p], min(largest[p], x[p]))
        largest[p] = x[p] if x[p] > largest[p] or x[p] != x[p] else largest[p]


@_kernel
def _rank(
    threads: int, first: int, last: int,
    values: _Reals, mask: NDArray[np.bool_], coords: _Reals, sizes: _Integers, softmax: bool, keys: NDArray[np.int32],
) -> None:  # fmt: skip
    """Write keys that order as the certainty of blocks `first` to `last` of points does, minus `points.uncertainty`."""
    if divided(threads, first, last):
        return
    index, share = room_for_neighbours()
    samples, certainty, second = np.empty((3, BLOCK), np.float32)
    blocks = (keys.shape[1] + BLOCK - 1) // BLOCK
    for block in range(first, last):
        b, start = block // blocks, block % blocks * BLOCK
        stop = min(start + BLOCK, keys.shape[1])
        count = neighbours(coords[b, start:stop], sizes, index, share)
        n = stop - start
        if mask.size:
            hide(mask[b], count, index[:, :n], share[:, :n])
        for p in range(n):
            certainty[p], second[p] = -_INFINITY if softmax else _INFINITY, -_INFINITY
        for c in range(values.shape[1]):
            interpolate(values[b, c], index, share, count, samples[:n])
            if softmax:
                _two_largest(samples, certainty[:n], second)
            else:
                _least(samples, certainty[:n])
        for p in range(n):
            size = certainty[p] - second[p] if softmax else certainty[p]
            # The bits of floats of one sign order as they do; NaN comes first.
            keys[b, start + p] = np.float32(size).view(np.int32) + 1 if size >= _ZERO else 0


@_kernel
def _keep(threads: int, first: int, last: int, keys: NDArray[np.int32], points: _Reals, kept: int, out: _Reals) -> None:
    """Write, of samples `first` to `last`, the `kept` points of the least keys and those that have none."""
    if divided(threads, first, last):
        return
    # Digit by digit: the branches of a partial sort cannot be foretold, and take several times as long.
    candidates = keys.shape[1]
    count, chosen, undecided = np.empty(2**11, np.int32), np.empty(candidates + 1, np.int32), np.empty_like(keys[0])
    for b in range(first, last):
        number, left, wanted = 0, candidates, kept
        for p in range(candidates):
            undecided[p] = p
        for shift in (20, 10, 0):
            for digit in range(count.size):
                count[digit] = 0
            for j in range(left):
                count[(keys[b, undecided[j]] >> shift) & (2**11 - 1)] += 1
            last_digit = 0
            while count[last_digit] < wanted:
                wanted -= count[last_digit]
                last_digit += 1
            among, left = left, 0
            for j in range(among):
                p = undecided[j]
                digit = (keys[b, p] >> shift) & (2**11 - 1)
                chosen[number], undecided[left] = p, p
                number += digit < last_digit
                left += digit == last_digit
        for j in range(wanted):
            chosen[number + j] = undecided[j]
        for axis in range(points.shape[2]):
            for p in range(kept):
                out[b, p, axis] = points[b, chosen[p], axis]
            for p in range(candidates, points.shape[1]):
                out[b, kept + p - candidates, axis] = points[b, p, axis]
