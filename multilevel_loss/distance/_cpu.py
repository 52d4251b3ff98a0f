"""Exact signed distances on the CPU: numba kernels without the GIL, run by a pool of threads.

README.md beside this file derives the algorithm and its bounds. Every mask is viewed as (A, B, C), C contiguous: a
plane as (1, H, W), a line as (1, 1, W). A box is (a0, a1, b0, b1, c0, c1), half-open. Kernels take the rows of a batch
as (N · A · B, C), for an index of four dimensions takes numba much longer to compile.
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

_LANES = 64  # neighbours along C that are minimized together: four AVX-512 or eight AVX registers of float32
_ROWS = 16  # of a block, whose minimizers are bounded together
_FEW = 4  # candidates that are tried at a time, so that fewer are not worth narrowing down
_ROUNDING = 1e-6  # several times float32's, relative


def signed_distances(inside: Tensor, spacing: Tensor | None, inner: bool) -> Tensor:
    """Return signed distances; `_op.signed_distances` explains the arguments."""
    distances = torch.empty_like(inside, dtype=torch.float32)
    if inside.numel() == 0:
        return distances
    batch, *sides = inside.shape
    size_a, size_b, size_c = shape = (1, 1, *sides)[-3:]
    steps = np.ones((batch, 3))
    if spacing is not None:
        steps[:, 3 - len(sides) :] = spacing.numpy()
    exact = spacing is None and sum((size - 1) ** 2 for size in shape) <= 2**24
    masks = inside.numpy().view(np.uint8).reshape(-1, size_c)
    out = distances.numpy().reshape(masks.shape)
    slabs, rows, strips = batch * size_a, batch * size_a * size_b, -(-size_c // _LANES)

    work = masks.size // 4  # voxels take so little that 512² are not worth a second thread
    extents, boxes = np.empty((slabs, 2, 4), np.int64), np.empty((2, 2, batch, 6), np.int64)
    _run(_find_extents, slabs, masks.size // 8, masks, size_b, extents)
    scanned = _find_boxes(extents, np.array(shape), boxes)
    # The nearest voxel of D is on ∂D, so distances to ∂D serve outside D, and inside if `inner`; otherwise the inside
    # is written a second time.
    for side in (1,) if inner else (1, 0):
        # Squares are kept where the distances will be, unless these are there already or float32 is too narrow.
        squares = out if exact and side else np.empty(masks.shape, np.float32 if exact else np.float64)
        arguments = masks, size_a, size_b, steps, side, *boxes[side], squares
        _run(_scan, rows, scanned, *arguments)
        if size_a > 1:
            _run(_minimize, batch * size_b * strips, work, *arguments, out, False)
        _run(_minimize, slabs * strips, work, *arguments, out, True)
    return distances


@_compile()
def _find_extents(first: int, last: int, masks: _Bytes, size_b: int, extents: _Integers) -> None:
    """Set extents[slab, side] to the (b0, b1, c0, c1) that bound the voxels equal to `side` in each slab."""
    size_c = masks.shape[1]
    some, every = np.empty(size_c, np.uint8), np.empty(size_c, np.uint8)
    for slab in range(first, last):
        extent = extents[slab]
        some[:] = 0
        every[:] = 1
        extent[:] = 0
        for b in range(size_b):
            row = masks[slab * size_b + b]
            any_1 = np.uint8(0)
            for c in range(size_c):
                any_1 |= row[c]
            all_1 = any_1
            if any_1:
                for c in range(size_c):
                    all_1 &= row[c]
            for side in range(2):
                if (any_1 if side else all_1) == side:
                    extent[side, 0] = extent[side, 0] if extent[side, 1] else b
                    extent[side, 1] = b + 1
            if any_1 == all_1:
                extent[any_1, 2], extent[any_1, 3] = 0, size_c
            else:
                for c in range(size_c):
                    some[c] |= row[c]
                    every[c] &= row[c]
        for side in range(2):
            present = some if side else every
            if extent[side, 3] == 0 and extent[side, 1] > 0:
                low, high = 0, size_c
                while present[low] != side:
                    low += 1
                while present[high - 1] != side:
                    high -= 1
                extent[side, 2], extent[side, 3] = low, high


@_compile()
def _find_boxes(extents: _Integers, shape: _Integers, boxes: _Integers) -> int:
    """Set boxes[side] to those of the boundary voxels of a side and to those where distances to them are written.

    They are written everywhere for side 1, in the box of D for side 0. Returns the voxels that are to be scanned.
    """
    scanned = 0
    for n in range(boxes.shape[2]):
        for side in range(2):
            box = boxes[side, 1, n]  # of the voxels equal to `side`, for now
            for i in range(6):
                box[i] = 0 if i % 2 else shape[i // 2]
            for a in range(shape[0]):
                extent = extents[n * shape[0] + a, side]
                if extent[1] > 0:
                    box[0], box[1] = min(box[0], a), a + 1
                    for i in range(2, 6, 2):
                        box[i], box[i + 1] = min(box[i], extent[i - 2]), max(box[i + 1], extent[i - 1])
        outer, inner = boxes[0, 1, n], boxes[1, 1, n]
        both = outer[1] > 0 and inner[1] > 0
        for i in range(0, 6, 2):
            for side in range(2):
                features, own, other = boxes[side, 0, n], boxes[side, 1, n], boxes[1 - side, 1, n]
                features[i] = max(own[i], other[i] - 1) if both else 0
                features[i + 1] = min(own[i + 1], other[i + 1] + 1) if both else 0
            outer[i], outer[i + 1] = (inner[i], inner[i + 1]) if both else (0, 0)
            inner[i], inner[i + 1] = 0, shape[i // 2]
        scanned += (features[1] - features[0]) * (features[3] - features[2]) * shape[2]
    return scanned


@_compile()
def _scan(
    first: int,
    last: int,
    masks: _Bytes,
    size_a: int,
    size_b: int,
    steps: NDArray[np.float64],
    side: int,
    features: _Integers,
    written: _Integers,
    squares: _Reals,
) -> None:
    """Set the squared distances along C to the nearest feature, in the rows that meet the box of features."""
    size_c = masks.shape[1]
    edges, gaps = np.empty(size_c, np.uint8), np.empty((2, 3 * size_c), np.float32)
    flip, zero, none, real = np.uint8(1 - side), np.float32(0), np.float32(np.inf), squares.dtype.type
    for slab in range(first // size_b, (last - 1) // size_b + 1):
        n, a = slab // size_a, slab % size_a
        a0, a1, b0, b1, c0, c1 = features[n]
        if a < a0 or a >= a1:
            continue
        gaps[:] = np.inf  # beside the box, which may have been wider
        size, start, stop = c1 - c0, written[n, 4], written[n, 5]
        step = real(steps[n, 2])
        for b in range(max(b0, first - slab * size_b), min(b1, last - slab * size_b)):
            r = slab * size_b + b
            row = masks[r]
            here, edge = row[c0:c1], edges[c0:c1]
            up, down = masks[r - size_b if a else r, c0:c1], masks[r + size_b if a + 1 < size_a else r, c0:c1]
            north, south = masks[r - 1 if b else r, c0:c1], masks[r + 1 if b + 1 < size_b else r, c0:c1]
            for c in range(size):
                edge[c] = (here[c] ^ up[c]) | (here[c] ^ down[c]) | (here[c] ^ north[c]) | (here[c] ^ south[c])
            east = row[c0 + 1 : c1 + 1]
            for c in range(east.size):
                edge[c] |= here[c] ^ east[c]
            for c in range(1, size):
                edge[c] |= here[c] ^ here[c - 1]
            if c0 > 0:
                edge[0] |= here[0] ^ row[c0 - 1]

            # After the step of length r, gaps below 2r are right.
            gap = gaps[0, size_c : size_c + size]
            for c in range(size):
                gap[c] = zero if edge[c] & (here[c] ^ flip) else none
            reach, turn = 1, 0
            while reach < size:
                near, far, length = gaps[turn], gaps[1 - turn, size_c : size_c + size], np.float32(reach)
                left, middle = near[size_c - reach : size_c - reach + size], near[size_c : size_c + size]
                right = near[size_c + reach : size_c + reach + size]
                for c in range(size):
                    beside = (left[c] if left[c] < right[c] else right[c]) + length
                    far[c] = middle[c] if middle[c] < beside else beside
                reach, turn = 2 * reach, 1 - turn
            gap = gaps[turn, size_c : size_c + size]
            line, first_gap, last_gap = squares[r], real(gap[0]), real(gap[size - 1])
            west_line, middle_line, east_line = line[start:c0], line[c0:c1], line[c1:stop]
            for c in range(west_line.size):
                west_line[c] = ((first_gap + real(np.int32(c0 - start - c))) * step) ** 2
            for c in range(size):
                middle_line[c] = (real(gap[c]) * step) ** 2
            for c in range(east_line.size):
                east_line[c] = ((last_gap + real(np.int32(c + 1))) * step) ** 2


@_compile()
def _minimize(
    first: int,
    last: int,
    masks: _Bytes,
    size_a: int,
    size_b: int,
    steps: NDArray[np.float64],
    side: int,
    features: _Integers,
    written: _Integers,
    squares: _Reals,
    out: NDArray[np.float32],
    final: bool,
) -> None:
    """Minimize f(p) + (x − p)² h² over p: along A in place or, `final`, along B into signed distances.

    An item is a strip of neighbours along C, minimized together. Candidates p that none of them needs are left out,
    the minimizers at the starts of blocks are bounded by bisection, and the x of a block try what lies between.
    """
    size_c = masks.shape[1]
    strips, lines, axis = -(-size_c // _LANES), size_a if final else size_b, 1 if final else 0
    longest = max(size_a, size_b) + _ROWS
    heights, ways = np.empty((longest, _LANES), squares.dtype), np.empty(longest, squares.dtype)
    least, minimizers = np.empty(_LANES, squares.dtype), np.empty(_LANES, np.int32)
    places, lower, upper = np.empty(longest, np.int64), np.empty(longest, np.int64), np.empty(longest, np.int64)
    sample, step = -1, 1.0
    stride = 1 if final else size_b
    for item in range(first, last):
        line, strip = item // strips % lines, item % strips
        n = item // strips // lines
        c, across = written[n, 4] + strip * _LANES, written[n, :2] if final else features[n, 2:4]
        width = min(_LANES, written[n, 5] - c)
        if width <= 0 or line < across[0] or line >= across[1]:
            continue
        low, high = features[n, 2 * axis], features[n, 2 * axis + 1]
        start, stop = written[n, 2 * axis], written[n, 2 * axis + 1]
        origin = (n * size_a + line) * size_b if final else n * size_a * size_b + line  # the row of x = 0
        if low == high:  # no boundary
            for x in range(start, stop):
                out[origin + x * stride, c : c + width] = 0
            continue
        if n != sample:
            sample, step = n, steps[n, axis]
            for k in range(longest):
                ways[k] = (k * step) ** 2
        count = 0
        for p in range(low, high):
            near = squares[origin + p * stride, c : c + width]
            if near[0] == np.inf:  # like its neighbours: no feature
                continue
            height = heights[count]
            for i in range(width):
                height[i] = near[i]
            for i in range(width, _LANES):
                height[i] = near[0]
            places[count] = p
            while count > 1 and _is_nowhere_lowest(heights, places, count - 1, ways[1]):
                above = heights[count - 1]
                for i in range(_LANES):
                    above[i] = height[i]
                height = above
                places[count - 1] = p
                count -= 1
            count += 1
        if count == 0:
            for x in range(start, stop):
                squares[origin + x * stride, c : c + width] = np.inf
            continue
        heights[count : count + _FEW] = np.inf
        places[count : count + _FEW] = start

        blocks = -(-(stop - start) // _ROWS)
        lower[0], upper[blocks] = 0, count - 1
        reach = 1
        while reach < blocks:
            reach *= 2
        while reach > 1:
            for block in range(reach // 2, blocks, reach):
                p, q = lower[block - reach // 2], upper[min(block + reach // 2, blocks)]
                if q - p >= _FEW:
                    p, q = _bound(heights, places, ways, step, start + block * _ROWS, p, q, least, minimizers)
                lower[block], upper[block] = p, q
            reach //= 2

        for block in range(blocks):
            if final and side and upper[block + 1] - lower[block] < _FEW and width == _LANES:
                p = lower[block]
                height_0, height_1, height_2, height_3 = heights[p], heights[p + 1], heights[p + 2], heights[p + 3]
                for x in range(start + block * _ROWS, min(start + (block + 1) * _ROWS, stop)):
                    way_0, way_1 = ways[abs(x - places[p])], ways[abs(x - places[p + 1])]
                    way_2, way_3 = ways[abs(x - places[p + 2])], ways[abs(x - places[p + 3])]
                    mask, distance = masks[origin + x, c : c + _LANES], out[origin + x, c : c + _LANES]
                    for i in range(_LANES):
                        first_two = min(height_0[i] + way_0, height_1[i] + way_1)
                        last_two = min(height_2[i] + way_2, height_3[i] + way_3)
                        root = np.float32(np.sqrt(min(first_two, last_two)))
                        distance[i] = np.float32(0) - root if mask[i] else root
                continue
            for x in range(start + block * _ROWS, min(start + (block + 1) * _ROWS, stop)):
                least[:] = np.inf
                for p in range(lower[block], upper[block + 1] + 1, _FEW):
                    way_0, way_1 = ways[abs(x - places[p])], ways[abs(x - places[p + 1])]
                    way_2, way_3 = ways[abs(x - places[p + 2])], ways[abs(x - places[p + 3])]
                    height_0, height_1, height_2, height_3 = heights[p], heights[p + 1], heights[p + 2], heights[p + 3]
                    for i in range(_LANES):
                        first_two = min(height_0[i] + way_0, height_1[i] + way_1)
                        last_two = min(height_2[i] + way_2, height_3[i] + way_3)
                        least[i] = min(min(first_two, least[i]), last_two)
                if final:
                    for i in range(_LANES):
                        least[i] = np.sqrt(least[i])
                    mask, distance = masks[origin + x, c : c + width], out[origin + x, c : c + width]
                    for i in range(width):
                        root = np.float32(least[i])
                        beyond = root if side else distance[i]
                        distance[i] = np.float32(0) - root if mask[i] else beyond
                else:
                    near = squares[origin + x * stride, c : c + width]
                    for i in range(width):
                        near[i] = least[i]


@_compile()
def _is_nowhere_lowest(heights: _Reals, places: _Integers, p: int, square: float) -> bool:
    """Return whether no line of a strip needs candidate p beside those before and after it."""
    left, middle, right = heights[p - 1], heights[p], heights[p + 1]
    real = heights.dtype.type
    before, after = real(1) / real(places[p] - places[p - 1]), real(1) / real(places[p + 1] - places[p])
    bend, rounding = real(places[p + 1] - places[p - 1]) * square, real(_ROUNDING)
    needed = np.int32(0)
    for i in range(_LANES):
        rise, fall = (middle[i] - left[i]) * before, (middle[i] - right[i]) * after
        needed |= np.int32(rise + fall < bend + rounding * (abs(rise) + abs(fall)))
    return bool(needed == 0)


@_compile()
def _bound(
    heights: _Reals,
    places: _Integers,
    ways: _Reals,
    step: float,
    x: int,
    p: int,
    q: int,
    least: _Reals,
    minimizers: NDArray[np.int32],
) -> tuple[int, int]:
    """Return the lowest and the highest of the minimizers at x of a strip, which are among p … q."""
    nearest = min(max(p + x - places[p], p), q)
    height, part = heights[nearest], _LANES // 4
    for i in range(part):
        first_two, last_two = max(height[i], height[part + i]), max(height[2 * part + i], height[3 * part + i])
        least[i] = max(first_two, last_two)
    farthest = least[0]
    for i in range(1, part):
        farthest = max(farthest, least[i])
    reach = int(np.sqrt(farthest + ways[abs(x - places[nearest])]) / step) + 1  # the way to any other alone is longer
    while p < q and places[p] < x - reach:
        p += 1
    while p < q and places[q] > x + reach:
        q -= 1
    least[:] = np.inf
    minimizers[:] = p
    for place in range(p, q + 1, 2):
        way, next_way = ways[abs(x - places[place])], ways[abs(x - places[place + 1])]
        height, next_height, here, there = heights[place], heights[place + 1], np.int32(place), np.int32(place + 1)
        for i in range(_LANES):
            cost, next_cost = height[i] + way, next_height[i] + next_way
            better = there if next_cost < cost else here
            cost = next_cost if next_cost < cost else cost
            minimizers[i] = better if cost < least[i] else minimizers[i]
            least[i] = cost if cost < least[i] else least[i]
    lowest, highest = minimizers[0], minimizers[0]
    for i in range(_LANES):
        minimizer = minimizers[i]
        lowest = minimizer if minimizer < lowest else lowest
        highest = minimizer if minimizer > highest else highest
    return lowest, highest
