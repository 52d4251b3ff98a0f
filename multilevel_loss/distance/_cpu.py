"""Exact signed distances on the CPU: numba kernels without the GIL, run by a pool of threads.

README.md beside this file derives the algorithm and its bounds. Every mask is viewed as (A, B, C), C contiguous: a
volume as it is, a plane (H, W) as (H, 1, W), a line as (1, 1, W). A box is (a0, a1, b0, b1, c0, c1), half-open.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multilevel_loss._numba import compiled as _compile
from multilevel_loss._numba import run as _run

_Bytes = NDArray[np.uint8]
_Integers = NDArray[np.int64]
_Reals = NDArray[np.float32] | NDArray[np.float64]

_BLOCK = 32  # neighbouring outputs that share their candidates: two AVX-512 or four AVX registers of float32
_FEW = 8  # candidates that cost less to try than to narrow down


def signed_distances(inside: Tensor, spacing: Tensor | None, inner: bool) -> Tensor:
    """Return signed distances; `_op.signed_distances` explains the arguments."""
    distances = torch.empty_like(inside, dtype=torch.float32)
    if inside.numel() == 0:
        return distances
    batch, *sides = inside.shape
    axes = {1: [2], 2: [0, 2], 3: [0, 1, 2]}[len(sides)]
    shape = np.ones(3, np.int64)
    shape[axes] = sides
    steps = np.ones((batch, 3))
    if spacing is not None:
        steps[:, axes] = spacing.numpy()
    # Twice the largest squared distance must stay a whole number in float32.
    exact = spacing is None and ((shape - 1) ** 2).sum() < 2**23
    real = np.empty(0, np.float32 if exact else np.float64)

    masks = inside.numpy().view(np.uint8).reshape(batch, *shape)
    out = distances.numpy().reshape(masks.shape)
    slabs, rows = batch * masks.shape[1], batch * masks.shape[2]
    extents = np.empty((slabs, 2, 4), np.int64)
    _run(_find_extents, slabs, masks.size // 8, masks, extents)
    boxes, features = np.empty((2, batch, 6), np.int64), np.empty((2, batch, 6), np.int64)
    ends = np.empty((2, batch), np.int64)
    _find_boxes(extents, shape, boxes, features, ends)
    # The nearest voxel of D is on ∂D, so distances to ∂D serve outside D, and inside if `inner`; otherwise the inside
    # is written a second time.
    for side in (1,) if inner else (1, 0):
        gaps = np.empty(ends[side, -1], np.float32)
        _run(_sweep, rows, gaps.size, masks, side, features[side], ends[side], gaps)
        work = masks.size if side else gaps.size
        _run(_fill, slabs, work, masks, steps, boxes[1], features[side], ends[side], gaps, side == 1, real, out)
    return distances


@_compile()
def _find_extents(first: int, last: int, masks: _Bytes, extents: _Integers) -> None:
    """Set extents[slab, side] to the (b0, b1, c0, c1) that bound the voxels equal to `side` in each slab."""
    _, size_a, size_b, size_c = masks.shape
    some_b, every_b = np.empty(size_b, np.uint8), np.empty(size_b, np.uint8)
    some_c, every_c = np.empty(size_c, np.uint8), np.empty(size_c, np.uint8)
    for slab in range(first, last):
        plane = masks[slab // size_a, slab % size_a]
        for c in range(size_c):
            some_c[c], every_c[c] = 0, 1
        for b in range(size_b):
            row = plane[b]
            some, every = np.uint8(0), np.uint8(1)
            for c in range(size_c):
                some |= row[c]
                every &= row[c]
            some_b[b], every_b[b] = some, every
            for c in range(size_c):
                some_c[c] |= row[c]
                every_c[c] &= row[c]
        for side in range(2):
            extent = extents[slab, side]
            extent[0], extent[1] = _span(some_b if side else every_b, side)
            if extent[0] < extent[1]:
                extent[2], extent[3] = _span(some_c if side else every_c, side)


@_compile()
def _span(flags: _Bytes, value: int) -> tuple[int, int]:
    first, last = 0, flags.size
    while first < last and flags[first] != value:
        first += 1
    while first < last and flags[last - 1] != value:
        last -= 1
    return first, last


@_compile()
def _find_boxes(extents: _Integers, shape: _Integers, boxes: _Integers, features: _Integers, ends: _Integers) -> None:
    """Set the boxes of each side's voxels and of those that face the other side, and where the latter's gaps end."""
    size_a = shape[0]
    for n in range(boxes.shape[1]):
        for side in range(2):
            box = boxes[side, n]
            for axis in range(3):
                box[2 * axis], box[2 * axis + 1] = shape[axis], 0
            for a in range(size_a):
                extent = extents[n * size_a + a, side]
                if extent[0] < extent[1]:
                    box[0], box[1] = min(box[0], a), a + 1
                    for i in range(2, 6, 2):
                        box[i] = min(box[i], extent[i - 2])
                        box[i + 1] = max(box[i + 1], extent[i - 1])
        both = boxes[0, n, 1] > 0 and boxes[1, n, 1] > 0
        for side in range(2):
            volume = 1
            for i in range(0, 6, 2):
                low = max(boxes[side, n, i], boxes[1 - side, n, i] - 1) if both else 0
                high = min(boxes[side, n, i + 1], boxes[1 - side, n, i + 1] + 1) if both else 0
                features[side, n, i], features[side, n, i + 1] = low, high
                volume *= high - low
            ends[side, n] = volume + (ends[side, n - 1] if n else 0)


@_compile()
def _sweep(
    first: int, last: int, masks: _Bytes, side: int, features: _Integers, ends: _Integers, gaps: NDArray[np.float32]
) -> None:
    """Set the gaps along A, in voxels, from each voxel of a box to the nearest feature of its column, or infinity."""
    _, size_a, size_b, size_c = masks.shape
    edges = np.empty(size_c, np.uint8)
    flip, zero, one, infinity = np.uint8(1 - side), np.float32(0), np.float32(1), np.float32(np.inf)
    for line in range(first, last):
        n, b = line // size_b, line % size_b
        a0, a1, b0, b1, c0, c1 = features[n]
        if a0 == a1 or b < b0 or b >= b1:
            continue
        size = c1 - c0
        columns = gaps[ends[n] - (a1 - a0) * (b1 - b0) * size : ends[n]].reshape(a1 - a0, b1 - b0, size)
        edge = edges[:size]
        for a in range(a0, a1):
            row = masks[n, a, b]
            here = row[c0:c1]
            up, down = masks[n, max(a - 1, 0), b, c0:c1], masks[n, min(a + 1, size_a - 1), b, c0:c1]
            north, south = masks[n, a, max(b - 1, 0), c0:c1], masks[n, a, min(b + 1, size_b - 1), c0:c1]
            for c in range(size):
                edge[c] = (here[c] ^ up[c]) | (here[c] ^ down[c]) | (here[c] ^ north[c]) | (here[c] ^ south[c])
            west, east = row[max(c0 - 1, 0) : c1 - 1], row[c0 + 1 : c1 + 1]
            first_with_west = size - west.size  # 1 at the edge of the image
            later_edge, later = edge[first_with_west:], here[first_with_west:]
            for c in range(west.size):
                later_edge[c] |= later[c] ^ west[c]
            for c in range(east.size):
                edge[c] |= here[c] ^ east[c]
            gap = columns[a - a0, b - b0, :]
            if a == a0:
                for c in range(size):
                    gap[c] = zero if edge[c] & (here[c] ^ flip) else infinity
            else:
                above = columns[a - a0 - 1, b - b0, :]
                for c in range(size):
                    gap[c] = zero if edge[c] & (here[c] ^ flip) else above[c] + one
        for a in range(a1 - a0 - 2, -1, -1):
            gap, after = columns[a, b - b0, :], columns[a + 1, b - b0, :]
            for c in range(size):
                gap[c] = gap[c] if gap[c] <= after[c] else after[c] + one


@_compile()
def _fill(
    first: int,
    last: int,
    masks: _Bytes,
    steps: NDArray[np.float64],
    boxes: _Integers,
    features: _Integers,
    ends: _Integers,
    gaps: NDArray[np.float32],
    everywhere: bool,
    real: _Reals,
    out: NDArray[np.float32],
) -> None:
    """Write the signed distances of slabs to the features: of all voxels, or of those of D."""
    _, size_a, size_b, size_c = masks.shape
    longest = max(size_b, size_c) + _BLOCK
    grid_b, grid_c = np.empty(longest, real.dtype), np.empty(longest, real.dtype)
    scratch, low = np.empty((3, longest), real.dtype), np.empty(longest, np.uint8)
    bounds = np.empty((2, longest // _BLOCK + 1), np.int64)
    # A row more than whole blocks keeps columns from sharing one cache set.
    squares = np.empty((size_b, size_c + 16), real.dtype)
    reduced = np.empty((size_c, size_b + _BLOCK + 16), real.dtype)
    row = np.empty(size_c + _BLOCK, real.dtype)
    sample = -1
    for slab in range(first, last):
        n, a = slab // size_a, slab % size_a
        a0, a1, b0, b1, c0, c1 = features[n]
        if everywhere:
            from_a, to_a, from_b, to_b, from_c, to_c = 0, size_a, 0, size_b, 0, size_c
        else:
            from_a, to_a, from_b, to_b, from_c, to_c = boxes[n]
        if a0 == a1 and everywhere:
            out[n, a] = 0
        if a0 == a1 or a < from_a or a >= to_a:
            continue
        if n != sample:
            sample = n
            for k in range(longest):
                grid_b[k] = k * steps[n, 1]
                grid_c[k] = k * steps[n, 2]
        nearest = min(max(a, a0), a1 - 1)
        step, away = real.dtype.type(steps[n, 0]), real.dtype.type(abs(a - nearest))
        plane = gaps[ends[n] - (a1 - a0) * (b1 - b0) * (c1 - c0) : ends[n]].reshape(a1 - a0, b1 - b0, c1 - c0)
        plane = plane[nearest - a0]
        for b in range(b1 - b0):
            for c in range(c1 - c0):
                squares[b, c] = ((plane[b, c] + away) * step) ** 2
        for c in range(c1 - c0):
            if size_b == 1:
                reduced[c, 0] = squares[0, c]
            else:
                _minimize(squares[: b1 - b0, c], grid_b, b0, from_b, to_b, reduced[c], scratch, low, bounds)
        for b in range(from_b, to_b):
            _minimize(reduced[: c1 - c0, b - from_b], grid_c, c0, from_c, to_c, row, scratch, low, bounds)
            mask, line = masks[n, a, b, from_c:to_c], out[n, a, b, from_c:to_c]
            for c in range(to_c - from_c):
                distance = np.float32(np.sqrt(row[c]))
                beyond = distance if everywhere else line[c]
                line[c] = np.float32(0) - distance if mask[c] else beyond


@_compile(fastmath={"nnan", "nsz", "contract"})
def _minimize(
    values: _Reals,
    grid: _Reals,
    source: int,
    start: int,
    stop: int,
    out: _Reals,
    scratch: _Reals,
    low: _Bytes,
    bounds: _Integers,
) -> None:
    """Set out[x - start] = min over p of values[p] + (grid[x] - grid[source + p])² for start ≤ x < stop."""
    heights, costs, places = scratch[0], scratch[1], scratch[2]
    lower, upper = bounds[0], bounds[1]
    infinity = costs.dtype.type(np.inf)
    size = values.size
    # A parabola that is not below the mean of its two neighbours, less the bend of theirs, is nowhere the lowest.
    bend = 2 * grid[1] * grid[1]
    heights[0] = heights[size + 1] = infinity
    for p in range(size):
        heights[p + 1] = values[p]
    for p in range(size):
        low[p] = heights[p + 1] + heights[p + 1] < heights[p] + heights[p + 2] + bend
    sites = grid[source : source + size]
    end = np.uint64(0)  # unsigned: an index that might be negative costs a comparison
    for p in range(size):
        costs[end], places[end] = heights[p + 1], sites[p]
        end += low[p]
    count = np.int64(end)
    for p in range(count, count + 3):  # blocks try four at a time
        costs[p], places[p] = infinity, 0

    # The lowest parabola at x moves up with x: bound it at every start of a block by bisection.
    blocks = (stop - start + _BLOCK - 1) // _BLOCK
    lower[0], upper[blocks] = 0, count - 1
    width = 1
    while width < blocks:
        width *= 2
    while width > 1:
        half = width // 2
        for block in range(half, blocks, width):
            first, last = lower[block - half], upper[min(block + half, blocks)]
            if last - first >= _FEW:
                x = grid[start + block * _BLOCK]
                near_costs, near_places = costs[first : last + 1], places[first : last + 1]
                best, lowest = infinity, 0
                for p in range(near_costs.size):
                    offset = near_places[p] - x
                    cost = near_costs[p] + offset * offset
                    lowest = p if cost < best else lowest
                    best = cost if cost < best else best
                first += lowest
                last = first
            lower[block], upper[block] = first, last
        width = half

    for block in range(blocks):
        xs = grid[start + block * _BLOCK : start + (block + 1) * _BLOCK]
        least = out[block * _BLOCK : (block + 1) * _BLOCK]
        least[:] = infinity
        for p in range(lower[block], upper[block + 1] + 1, 4):
            cost, place = costs[p : p + 4], places[p : p + 4]
            cost_0, cost_1, cost_2, cost_3 = cost[0], cost[1], cost[2], cost[3]
            place_0, place_1, place_2, place_3 = place[0], place[1], place[2], place[3]
            for i in range(_BLOCK):
                offset_0, offset_1 = xs[i] - place_0, xs[i] - place_1
                offset_2, offset_3 = xs[i] - place_2, xs[i] - place_3
                first_two = min(cost_0 + offset_0 * offset_0, cost_1 + offset_1 * offset_1)
                last_two = min(cost_2 + offset_2 * offset_2, cost_3 + offset_3 * offset_3)
                least[i] = min(min(first_two, least[i]), last_two)
